"""Entry point of ``python -m muxrec_kernels.bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from muxrec_kernels.operations import OPERATIONS

LIMIT_S = 450.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and time operations; 1 where an answer was wrong, else 0."""
    parser = argparse.ArgumentParser(prog="python -m muxrec_kernels.bench")
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(OPERATIONS)}; all by default")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds for everything")
    options = parser.parse_args(arguments)
    if unknown := set(options.operations) - set(OPERATIONS):
        parser.error(f"unknown operation {min(unknown)}: choose from {', '.join(OPERATIONS)}")
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":  # Triton reads it when a kernel is decorated: before any import.
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from muxrec_kernels.bench.run import run

    chosen = options.operations or OPERATIONS
    report = run(chosen, device=device, limit_s=options.limit_s, out=options.out)
    return 0 if report.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
