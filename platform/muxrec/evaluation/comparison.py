"""Two or more runs against the first one, paired over the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from muxrec.errors import DataError
from muxrec.evaluation.archive import ARCHIVE, load_study
from muxrec.evaluation.bootstrap import Difference, Interval, difference, interval
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.study import Row, Study, Truth
from muxrec.evaluation.summary import metric_names


@dataclass(frozen=True)
class Compared:
    """One run beside the first.

    Attributes:
        run: The run folder as it was given.
        row: Name of the row.
        levels: Metric -> mean and interval.
        gaps: Metric -> this run minus the first; empty for the first itself.
    """

    run: str
    row: str
    levels: dict[str, Interval]
    gaps: dict[str, Difference]


def compare_runs(
    runs: Sequence[Path],
    *,
    row: str = "main",
    truth: str | None = None,
    part: str = "all",
    resamples: int = 1000,
) -> list[Compared]:
    """The row ``row`` of every run, and its paired difference from the first run.

    Args:
        runs: Run folders (or report folders) that hold a ``queries.npz``, the reference first.
        row: Row compared: ``main``, an ablation or a baseline.
        truth: Ground truth; None for the first one.
        part: Slice.
        resamples: Bootstrap resamples.

    Raises:
        DataError: A run has no report, no such row, truth or slice, or the runs were measured on
            different queries or answers, whose metrics must not be paired.
    """
    studies = [load_study(_archive(run)) for run in runs]
    truths = [_pick(s.truths, truth or s.truths[0].name, "ground truth") for s in studies]
    for run, study, found in zip(runs[1:], studies[1:], truths[1:], strict=True):
        _check_pairs(run, (studies[0], truths[0]), (study, found))
    values = []
    for study, found in zip(studies, truths, strict=True):
        chosen: Row = _pick(study.rows, row, "row")
        piece = _pick(found.slices, part, "slice")
        values.append(study.metrics(chosen, found, piece).values)
    names = [n for n in metric_names(studies[0].ks) if all(n in found for found in values)]
    return [
        Compared(
            run=str(run),
            row=row,
            levels={n: interval(found[n], resamples=resamples) for n in names},
            gaps={n: difference(found[n], values[0][n], resamples=resamples) for n in names}
            if at
            else {},
        )
        for at, (run, found) in enumerate(zip(runs, values, strict=True))
    ]


def _archive(run: Path) -> Path:
    inside = run / "report" / ARCHIVE
    return inside if inside.is_file() or not (run / ARCHIVE).is_file() else run / ARCHIVE


def _pick(found: Sequence, name: str, what: str):
    by_name = {entry.name: entry for entry in found}
    if name not in by_name:
        raise DataError(f"no {what} {name} in the report, there is: {', '.join(by_name)}")
    return by_name[name]


def _check_pairs(run: Path, first: tuple[Study, Truth], other: tuple[Study, Truth]) -> None:
    if first[0].split != other[0].split:
        raise DataError(
            f"{run} was measured on {other[0].split}, the first run on {first[0].split}"
        )
    mine, theirs = (_named(study, truth.relevance) for study, truth in (first, other))
    if any(not np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)):
        raise DataError(
            f"{run} was measured on other queries or answers than the first run (datasets "
            f"{other[0].digest[:12]} and {first[0].digest[:12]}): evaluate both on one dataset "
            "with the same evaluation.min_events and evaluation.max_relevant"
        )


def _named(study: Study, relevance: Relevance) -> tuple[np.ndarray, ...]:
    keys = study.item_keys
    return keys[relevance.queries], relevance.offsets, keys[relevance.items]
