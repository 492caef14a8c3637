"""Machine code of a kernel for a GPU that need not be there: compiled, disassembled, counted.

The triton wheel carries the assembler and the disassembler, so a test on any Linux machine can hold
what decides a memory-bound kernel's speed: the width of its loads, spills and registers.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WARP = 32
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class MachineCode:
    """What the assembler made of a kernel.

    Attributes:
        registers: Registers per thread.
        stack_bytes: Stack per thread; anything but 0 is a spill.
        operations: How often each memory operation occurs, e.g. ``{"LDG.E.128": 8}``.
    """

    registers: int
    stack_bytes: int
    operations: Mapping[str, int]

    def count(self, prefix: str) -> int:
        """Operations whose name starts with ``prefix``."""
        return sum(n for name, n in self.operations.items() if name.startswith(prefix))


def compile_kernel(
    kernel: Any,
    *,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    aligned: tuple[str, ...],
    arch: int,
    warps: int,
) -> MachineCode:
    """Compile ``kernel`` for compute capability ``arch`` and count its machine code.

    Args:
        kernel: A function under ``triton.jit``, decorated without the interpreter.
        arguments: Run-time argument -> Triton type, e.g. ``*fp32`` or ``i32``.
        constants: Compile-time argument -> value.
        aligned: Pointer arguments that are multiples of 16 bytes, as torch's allocations are.
        arch: 80 for an A100, 90 for an H100 or H200.
        warps: Warps per program.

    Raises:
        TypeError: The kernel was decorated under ``TRITON_INTERPRET=1``.
    """
    if not isinstance(kernel, triton.JITFunction):
        raise TypeError("the kernel is interpreted: compile in a process without TRITON_INTERPRET")
    names = [parameter.name for parameter in kernel.params]
    source = ASTSource(
        fn=kernel,
        signature={name: arguments.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    target = GPUTarget("cuda", arch, WARP)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    return read_cubin(compiled.asm["cubin"])


def read_cubin(cubin: bytes) -> MachineCode:
    """Disassemble a compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = _run("nvdisasm", "-c", path)
        usage = _run("cuobjdump", "-res-usage", path)
    operations = Counter(re.findall(r"\b(?:LDG|STG|LDL|STL|HGMMA)[.\w]*", listing))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about registers: {usage!r}")
    return MachineCode(int(found[1]), int(found[2]), dict(operations))


def _run(tool: str, *arguments: object) -> str:
    command = [str(_TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
