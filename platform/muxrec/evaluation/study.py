"""A study: every row (baseline, trained tower, control) measured on every ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muxrec.evaluation.exposure import Exposure, measure_exposure
from muxrec.evaluation.metrics import PerQuery, target_ranks
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import Scorer
from muxrec.evaluation.slices import Slice, build_slices, slice_metrics
from muxrec.recipe.model import Recipe

RowKind = Literal["baseline", "trained", "control"]
MAIN = "main"


@dataclass(frozen=True)
class Measured:
    """One ranking, of one seed, on everything.

    Attributes:
        ranks: Ground truth -> rank of every relevant item, int64 ``[N]``.
        exposure: Who is in the lists.
    """

    ranks: dict[str, npt.NDArray[np.int64]]
    exposure: Exposure


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        name: Its name, ``main`` for the full tower.
        kind: ``baseline``, ``trained`` or ``control``.
        runs: Seed -> measurement; a baseline has the one seed 0.
    """

    name: str
    kind: RowKind
    runs: Mapping[int, Measured]


@dataclass(frozen=True)
class Truth:
    """One ground truth and its slices, ``all`` first."""

    name: str
    relevance: Relevance
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class RowMetrics:
    """One row on one slice.

    Attributes:
        values: Metric -> float64 ``[Q]``, mean over seeds, NaN for queries that do not count.
        sd: Metric -> standard deviation over seeds of the mean over queries; NaN for one seed.
    """

    values: dict[str, PerQuery]
    sd: dict[str, float]


@dataclass(frozen=True)
class Study:
    """All rows on all ground truths.

    Attributes:
        name: The recipe's name.
        split: ``test`` for final tables, ``validation`` for choices.
        digest: Content digest of the dataset snapshot.
        ks: Cut-offs.
        item_keys: Catalogue, int64 ``[C]``; positions below refer to it.
        truths: Ground truths.
        rows: Rows, in table order.
        unavailable: Baseline -> why it has no row.
    """

    name: str
    split: str
    digest: str
    ks: tuple[int, ...]
    item_keys: npt.NDArray[np.int64]
    truths: tuple[Truth, ...]
    rows: tuple[Row, ...]
    unavailable: dict[str, str]

    def row(self, name: str) -> Row:
        """The row called ``name``.

        Raises:
            KeyError: There is none.
        """
        return {row.name: row for row in self.rows}[name]

    def metrics(self, row: Row, truth: Truth, part: Slice) -> RowMetrics:
        """A row's per-query metrics on one slice, seeds averaged."""
        runs = [
            slice_metrics(run.ranks[truth.name], truth.relevance, part, ks=self.ks)
            for run in row.runs.values()
        ]
        values = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
        sd = {name: _sd_of_means([run[name] for run in runs]) for name in runs[0]}
        return RowMetrics(values, sd)


def build_truths(
    items: pa.Table, relevance: Mapping[str, Relevance], recipe: Recipe
) -> tuple[Truth, ...]:
    """Ground truths that have queries, each with its slices; a part of the catalogue has one."""
    return tuple(
        Truth(name, found, _slices(items, found, recipe))
        for name, found in relevance.items()
        if len(found)
    )


def _slices(items: pa.Table, relevance: Relevance, recipe: Recipe) -> tuple[Slice, ...]:
    found = build_slices(items, relevance, recipe.features)
    return found if relevance.candidates is None else found[:1]


def measure(
    scorer: Scorer,
    relevance: Mapping[str, Relevance],
    train_events: npt.NDArray[np.int64],
) -> Measured:
    """Ranks on every ground truth, and the exposure of the top ten lists.

    Raises:
        DataError: The scorer is of another catalogue, or its scores are NaN.
    """
    ranks = {name: target_ranks(scorer, found) for name, found in relevance.items()}
    return Measured(ranks, measure_exposure(scorer, train_events))


def _sd_of_means(runs: list[PerQuery]) -> float:
    counted = [values[~np.isnan(values)] for values in runs]
    if len(runs) < 2 or not counted[0].size:
        return float("nan")
    return float(np.std([values.mean() for values in counted], ddof=1))
