"""``python -m muxrec_kernels.gate``: compile every kernel for GPUs that are not here, and judge.

Needs triton and nothing else of the platform, so that the same gate runs under any version of it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from muxrec_kernels.operations import OPERATIONS


class Verdict(NamedTuple):
    """What became of one variant.

    Attributes:
        operation: Its operation.
        name: Its name.
        arch: Compute capability, times ten.
        registers: Registers per thread.
        wide_loads: Loads of 16 bytes.
        faults: What is wrong; empty where nothing is.
    """

    operation: str
    name: str
    arch: int
    registers: int
    wide_loads: int
    faults: list[str]


def judge(operation: str, *, arch: int | None = None) -> Iterator[Verdict]:
    """Compile and judge the variants of an operation.

    Args:
        operation: A name of ``OPERATIONS``.
        arch: Only variants for this capability; None for all.
    """
    from muxrec_kernels.machine_code import compile_variant, faults

    folder = f"muxrec_kernels.{operation}"
    kernels = importlib.import_module(f"{folder}.triton_kernel")
    for variant in importlib.import_module(f"{folder}.variants").VARIANTS:
        for each in variant.archs:
            if arch in (None, each):
                code = compile_variant(kernels, variant, arch=each)
                wrong = faults(variant, code, arch=each)
                yield Verdict(operation, variant.name, each, code.registers, code.wide_loads, wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per variant; 1 where one of them has a fault, else 0."""
    parser = argparse.ArgumentParser(prog="python -m muxrec_kernels.gate")
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(OPERATIONS)}; all by default")
    parser.add_argument("--arch", type=int, choices=(80, 90))
    options = parser.parse_args(arguments)
    if unknown := set(options.operations) - set(OPERATIONS):
        parser.error(f"unknown operation {min(unknown)}: choose from {', '.join(OPERATIONS)}")
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: the gate compiles, unset it")
    import triton

    sys.stdout.write(f"triton {triton.__version__}\n")
    failed = False
    for operation in options.operations or OPERATIONS:
        for verdict in judge(operation, arch=options.arch):
            failed |= bool(verdict.faults)
            said = "; ".join(verdict.faults) or "ok"
            sys.stdout.write(
                f"{operation} | {verdict.name} | sm_{verdict.arch} | {verdict.registers} registers "
                f"| {verdict.wide_loads} wide loads | {said}\n"
            )
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
