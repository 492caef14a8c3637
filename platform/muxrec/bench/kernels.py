"""``muxrec bench kernels``: the kernels' own bench, with its results as Markdown for docs/.

The measuring itself needs torch and triton only: ``python -m muxrec_kernels.bench`` is the same run
on a machine that has nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muxrec.bench.report import Cell, Table, write_markdown
from muxrec.errors import MuxrecError
from muxrec_kernels.dispatch import why_no_triton
from muxrec_kernels.operations import OPERATIONS

if TYPE_CHECKING:
    from muxrec_kernels.bench.measure import Result
    from muxrec_kernels.bench.run import Report

COLUMNS = ("case", "ms", "GB/s", "of the roof", "peers", "targets", "same bits ten times")


@click.command()
@click.argument("operations", nargs=-1, type=click.Choice(OPERATIONS))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
@click.option("--limit-s", default=450.0, show_default=True, help="Seconds for everything.")
def kernels_bench(operations: tuple[str, ...], out: Path | None, limit_s: float) -> None:
    """Check every kernel, and time it where there is a CUDA device."""
    if reason := why_no_triton("cuda"):
        raise MuxrecError(f"the kernels cannot be measured: {reason}")
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":  # Triton reads it when a kernel is decorated: before any import.
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from muxrec_kernels.bench.run import run

    report = run(operations or OPERATIONS, device=device, limit_s=limit_s, out=out)
    if out is not None:
        click.echo(f"written: {write_markdown(out, 'bench-kernels', list(tables_of(report)))}")
    if not report.is_sound:
        raise MuxrecError("an answer was wrong: see the lines with FAILED or FAULT above")


def tables_of(report: Report) -> Iterator[Table]:
    """One table of checks, and one of cases for every operation."""
    about = ", ".join(f"{key} {value}" for key, value in report.environment.items())
    yield Table(
        "Correctness",
        f"{about}. Norm ratio to the reference in float64, outputs poisoned before.",
        ("check", "off by", "allowed", "passed"),
        tuple(
            (f"{name}: {check.name}", check.ratio, check.tolerance, "yes" * check.is_passed or "NO")
            for name, checks in report.checks.items()
            for check in checks
        ),
    )
    for name, results in report.cases.items():
        note = "Medians; a peer's number is its time over ours. Targets: wanted, reached."
        yield Table(name, note, COLUMNS, tuple(_row(result) for result in results))
    if report.left_out:
        yield Table("Left out", "", ("what",), tuple((line,) for line in report.left_out))


def _row(result: Result) -> tuple[Cell, ...]:
    is_timed = "muxrec" in result.milliseconds
    peers = [f"{name} {value:.2f}x" for name, value in result.speed_ups.items()]
    absent = [f"{name}: {reason}" for name, reason in result.absent.items()]
    targets = [
        f"{name} {wanted:.2f}: {reached:.2f} {'met' if is_met else 'MISSED'}"
        for name, (wanted, reached, is_met) in result.targets.items()
    ]
    return (
        result.name,
        result.milliseconds["muxrec"] if is_timed else "not timed",
        result.bytes_per_s / 1e9 if is_timed else "-",
        f"{result.roof_share:.1%}" if is_timed else "-",
        "; ".join(peers + absent) or "-",
        "; ".join(targets) or "-",
        "yes" if result.is_repeatable else "NO",
    )
