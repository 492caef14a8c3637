"""Compile what launchers launch: ``launch_worker.py [--only name] calls.py ...``.

The calls of files in ``launches/`` run on CPU tensors through the launchers as they are. Triton's
own binding of arguments decides types and constants, as it would on the device; its compiler and
the assembler do the rest; nothing is started, and every output is zeros.

Prints a line ``kernel | arguments | ok`` per launch that differs from those before, or what is
wrong in place of ``ok``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction
from triton.runtime.driver import driver

from muxrec_kernels import dispatch
from muxrec_kernels.machine_code import HOPPER, WARP, read_usage

SHARED_BYTES = 227 * 1024
"""Shared memory of a program on an H100 or H200."""
MOST_PROGRAMS = (2**31 - 1, 65535, 65535)


class AbsentGPU:
    """A driver of a device that loads kernels and never runs them."""

    def __init__(self) -> None:
        properties = {"max_shared_mem": SHARED_BYTES, "multiprocessor_count": 132}
        self.utils = SimpleNamespace(
            get_device_properties=lambda _: properties,
            # Module, function, registers, spills, threads at most.
            load_binary=lambda *_: (None, None, 0, 0, 1024),
        )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", HOPPER, WARP)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def launcher_cls(self, *_: object) -> Any:
        return refuse_grids


def refuse_grids(*arguments: object) -> None:
    """Where a kernel would start: only the grid is looked at."""
    grid = arguments[:3]
    for size, most in zip(grid, MOST_PROGRAMS, strict=True):
        if not isinstance(size, int) or not 0 <= size <= most:
            raise ValueError(f"a grid of {grid} cannot be launched")


class Launches:
    """``JITFunction.run`` that says of every new launch whether it compiles."""

    def __init__(self) -> None:
        self._run: Any = JITFunction.run
        self._seen = set[tuple[JITFunction, str]]()

    def __call__(self, kernel: JITFunction, *arguments: Any, **options: Any) -> None:
        said = describe(kernel, arguments, options)
        try:
            made = self._run(kernel, *arguments, **options)
            verdict = "ok" if (kernel, said) in self._seen else judge(made)
        except Exception as error:  # noqa: BLE001 - whatever stops a launch is what this is for
            verdict = last_line(error)
        if (kernel, said) not in self._seen or verdict != "ok":
            self._seen.add((kernel, said))
            sys.stdout.write(f"{said} | {verdict}\n")
            sys.stdout.flush()


def describe(kernel: JITFunction, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Kernel, and type or value of every argument: ``:D`` stands for a multiple of 16."""
    binder = kernel.device_caches[0][-1]
    given = {name: value for name, value in options.items() if name not in ("grid", "warmup")}
    bound, kinds, others = binder(*arguments, **given)
    told = [
        f"{name}={value if kind == 'constexpr' else kind + (':' + value if value else '')}"
        for name, (kind, value) in zip(bound, kinds, strict=True)
    ]
    return f"{kernel.__name__} | {' '.join(told + [f'{n}={v}' for n, v in others.items()])}"


def judge(kernel: CompiledKernel) -> str:
    _, stack_bytes = read_usage(kernel.asm["cubin"])
    return f"spills: {stack_bytes} bytes of stack" if stack_bytes else "ok"


def last_line(error: BaseException) -> str:
    """What is wrong where it is wrong: a compiler's error names the callers first."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip(" ^")]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"launches_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("calls", nargs="+", type=Path, help="files with a dict CALLS")
    parser.add_argument("--only", help="a key of CALLS; all by default")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: launches are compiled here, unset it")
    os.environ[dispatch.FORCE_VARIABLE] = "triton"
    # Unsafe outside of this process: kernels get memory of the CPU and leave their outputs unset.
    dispatch.why_no_triton = lambda _: None
    torch.empty = torch.zeros
    torch.empty_like = torch.zeros_like
    driver.set_active(AbsentGPU())  # type: ignore[arg-type]
    launches = Launches()
    JITFunction.run = lambda self, *given, **settings: launches(self, *given, **settings)  # type: ignore[method-assign]
    for path in options.calls:
        calls = load(path).CALLS
        for name in [options.only] if options.only else calls:
            calls[name]()


if __name__ == "__main__":
    main()
