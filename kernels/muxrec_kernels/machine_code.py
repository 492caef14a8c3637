"""Machine code of a kernel for a GPU that need not be there: compiled, disassembled, judged.

The triton wheel carries the assembler and the disassembler, so any Linux machine can hold what
decides a memory-bound kernel's speed: the width of its loads, spills, registers, matrix units.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WARP = 32
HOPPER = 90
MOST_REGISTERS = 168
"""64 Ki registers per multiprocessor over 168 x 32 threads leave 12 programs of 4 KiB in flight:
48 KiB, twice what hides the memory's latency at full bandwidth."""

SPILLS = ("LDL", "STL")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_WATCHED = "LDG|LDGSTS|STG|LDL|STL|HGMMA|HMMA|IMMA|IGMMA|I2F|I2FP|POPC|RED|ATOM|ATOMG"


@dataclass(frozen=True)
class Variant:
    """A kernel under fixed constants, and what its machine code has to be.

    Attributes:
        name: What tells it from the operation's other variants.
        kernel: The function's name in the operation's ``triton_kernel`` module.
        arguments: Run-time argument -> Triton type, e.g. ``*fp32`` or ``i32``.
        constants: Compile-time argument -> value.
        aligned: Arguments that are multiples of 16, as torch's allocations are.
        warps: Warps per program.
        stages: Stages of pipelined loops; None for Triton's default.
        registers: Most registers per thread.
        wide_loads: Fewest loads of 16 bytes.
        needs: Prefixes of instructions that must occur for compute capability 9.0.
        forbids: Prefixes of instructions that must not occur.
        archs: Compute capabilities, times ten, that it is compiled for.
    """

    name: str
    kernel: str
    arguments: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...]
    warps: int = 1
    stages: int | None = None
    registers: int = MOST_REGISTERS
    wide_loads: int = 0
    needs: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    archs: tuple[int, ...] = (HOPPER,)


@dataclass(frozen=True)
class MachineCode:
    """What the assembler made of a kernel.

    Attributes:
        registers: Registers per thread.
        stack_bytes: Stack per thread; anything but 0 is a spill.
        operations: How often each watched operation occurs, e.g. ``{"LDG.E.128": 8}``.
    """

    registers: int
    stack_bytes: int
    operations: Mapping[str, int] = field(default_factory=dict)

    def count(self, *prefixes: str) -> int:
        """Operations whose name starts with one of ``prefixes``."""
        return sum(n for name, n in self.operations.items() if name.startswith(prefixes))

    @property
    def wide_loads(self) -> int:
        """Loads of 16 bytes per thread, straight or through shared memory."""
        return sum(
            n
            for name, n in self.operations.items()
            if name.startswith(("LDG.", "LDGSTS.")) and ".128" in name
        )


def compile_variant(kernels: ModuleType, variant: Variant, *, arch: int) -> MachineCode:
    """Compile a variant for compute capability ``arch`` and read its machine code.

    Args:
        kernels: The operation's ``triton_kernel`` module, imported without the interpreter.
        variant: The function and its constants.
        arch: 80 for an A100, 90 for an H100 or H200.

    Raises:
        TypeError: The kernel was decorated under ``TRITON_INTERPRET=1``.
    """
    kernel = getattr(kernels, variant.kernel)
    if not isinstance(kernel, triton.JITFunction):
        raise TypeError("the kernel is interpreted: compile in a process without TRITON_INTERPRET")
    names = [parameter.name for parameter in kernel.params]
    source = ASTSource(
        fn=kernel,
        signature={name: variant.arguments.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in variant.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned},
    )
    options = {"num_warps": variant.warps}
    if variant.stages is not None:
        options["num_stages"] = variant.stages
    target = GPUTarget("cuda", arch, WARP)
    return read_cubin(triton.compile(source, target=target, options=options).asm["cubin"])


def faults(variant: Variant, code: MachineCode, *, arch: int) -> list[str]:
    """What is wrong with the machine code, a line each; empty where nothing is."""
    found = []
    if code.stack_bytes or code.count(*SPILLS):
        found.append(f"spills: {code.stack_bytes} bytes of stack, {code.count(*SPILLS)} moves")
    if code.registers > variant.registers:
        found.append(f"{code.registers} registers, at most {variant.registers} were expected")
    if code.wide_loads < variant.wide_loads:
        found.append(
            f"{code.wide_loads} loads of 16 bytes, at least {variant.wide_loads} were expected"
        )
    if arch == HOPPER:
        found += [f"no {prefix} instruction" for prefix in variant.needs if not code.count(prefix)]
    return found + [f"a {prefix} instruction" for prefix in variant.forbids if code.count(prefix)]


def read_cubin(cubin: bytes) -> MachineCode:
    """Disassemble a compiled kernel."""
    listing = _run("nvdisasm", "-c", cubin)
    operations = Counter(re.findall(rf"\b(?:{_WATCHED})(?:\.\w+)*(?![\w.])", listing))
    return MachineCode(*read_usage(cubin), dict(operations))


def read_usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack per thread of a compiled kernel; quick, nothing is listed."""
    usage = _run("cuobjdump", "-res-usage", cubin)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about registers: {usage!r}")
    return int(found[1]), int(found[2])


def _run(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(_TOOLS / tool), option, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout
