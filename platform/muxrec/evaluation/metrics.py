"""Recall, ndcg and mrr over the whole catalogue, kept per query.

Ties are broken against the model: of items with equal scores, those that are not relevant come
first. A model that gives every item the same score therefore finds nothing, whatever the order of
the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from muxrec.errors import DataError
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import NEVER, Scorer, score_blocks, vector_scorer

PerQuery = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One ranking model against one ground truth.

    Attributes:
        metrics: Metric name (``recall_at_10``, ``ndcg_at_10``, ``mrr``) -> float64 ``[Q]``, NaN
            for a query without relevant items: it is not counted.
        ranks: Rank, from 1, of every relevant item in its query's ranking of the whole catalogue,
            int64 ``[N]`` in the order of ``Relevance.items``; 0 where it was never recommended.
    """

    metrics: dict[str, PerQuery]
    ranks: npt.NDArray[np.int64]

    def mean(self, name: str) -> float:
        """Mean over the queries that have relevant items; NaN when none has."""
        values = self.metrics[name]
        counted = values[~np.isnan(values)]
        return float(counted.mean()) if counted.size else float("nan")

    @property
    def means(self) -> dict[str, float]:
        """Every metric's mean."""
        return {name: self.mean(name) for name in self.metrics}


def evaluate_vectors(
    vectors: npt.NDArray[np.floating], relevance: Relevance, *, ks: Sequence[int]
) -> Result:
    """Metrics of ranking by inner product of ``vectors``, ``[C, D]`` in catalogue order.

    Raises:
        DataError: Vectors are not finite, or relevance points outside of them.
    """
    return evaluate_scores(vector_scorer(vectors), relevance, ks=ks)


def evaluate_scores(scorer: Scorer, relevance: Relevance, *, ks: Sequence[int]) -> Result:
    """Metrics of any scorer: the whole catalogue is ranked minus the query item.

    Raises:
        DataError: Relevance points outside the catalogue, or scores are NaN or misshapen.
        ValueError: ``ks`` holds a cut-off below 1.
    """
    ranks = target_ranks(scorer, relevance)
    return Result(rank_metrics(ranks, relevance.offsets, ks=ks), ranks)


def target_ranks(scorer: Scorer, relevance: Relevance) -> npt.NDArray[np.int64]:
    """Rank from 1 of each relevant item, int64 ``[N]``; 0 where it was never recommended.

    Raises:
        DataError: Relevance points outside the catalogue or lists a query as its own answer.
    """
    _check(scorer, relevance)
    ranks = np.zeros(len(relevance.items), dtype=np.int64)
    for start, scores in score_blocks(scorer, relevance.queries):
        bounds = relevance.offsets[start : start + len(scores) + 1]
        rows = np.repeat(np.arange(len(scores)), np.diff(bounds))
        targets = relevance.items[bounds[0] : bounds[-1]]
        if relevance.candidates is not None:
            scores[:, ~relevance.candidates] = NEVER
        found = scores[rows, targets]
        scores[rows, targets] = NEVER
        scores.sort(axis=1)
        for row, (low, high) in enumerate(pairwise(bounds)):
            own = found[low - bounds[0] : high - bounds[0]]
            ranks[low:high] = _ranks_of(own, scores[row])
    return ranks


def _ranks_of(
    own: npt.NDArray[np.float32], others: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Ranks of the relevant scores ``own`` among ``others``, sorted rising, ties after others."""
    before = others.size - np.searchsorted(others, own, side="left")
    place = np.empty(own.size, dtype=np.int64)
    place[np.argsort(-own, kind="stable")] = np.arange(own.size)
    return np.where(own > NEVER, before + place + 1, 0)


def _check(scorer: Scorer, relevance: Relevance) -> None:
    for name, at in (("queries", relevance.queries), ("items", relevance.items)):
        if at.size and (at.min() < 0 or at.max() >= scorer.count):
            raise DataError(
                f"relevance {name} lie in [{at.min()}, {at.max()}] but {scorer.count} items are "
                "scored: vectors and dataset are of different catalogues"
            )
    own = relevance.items == relevance.queries[relevance.rows]
    if own.any():
        raise DataError(f"{int(own.sum())} queries are listed as relevant to themselves")


def rank_metrics(
    ranks: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], *, ks: Sequence[int]
) -> dict[str, PerQuery]:
    """Per-query metrics from the ranks of the relevant items.

    ``recall_at_k = hits / min(k, relevant)``; ``ndcg_at_k`` has binary gains, discount
    ``1 / log2(1 + rank)`` and the ideal of ``min(k, relevant)`` hits; ``mrr`` is one over the best
    rank, without a cut-off.

    Args:
        ranks: Int64 ``[N]``, from 1, 0 for never recommended.
        offsets: Int64 ``[Q + 1]``.
        ks: Cut-offs, each at least 1.

    Returns:
        Metric name -> float64 ``[Q]``, NaN for a query without relevant items.
    """
    if any(k < 1 for k in ks):
        raise ValueError(f"cut-offs must be at least 1, got {list(ks)}")
    sizes = np.diff(offsets)
    row = np.repeat(np.arange(sizes.size), sizes)
    seen = (ranks > 0).astype(np.float64)
    gains = seen / np.log2(np.maximum(ranks, 1) + 1)
    metrics: dict[str, PerQuery] = {}
    for k in ks:
        hit = seen * (ranks <= k)
        most = np.minimum(k, sizes)
        hits = np.bincount(row, weights=hit, minlength=sizes.size)
        dcg = np.bincount(row, weights=hit * gains, minlength=sizes.size)
        metrics[f"recall_at_{k}"] = _divide(hits, most.astype(np.float64))
        metrics[f"ndcg_at_{k}"] = _divide(dcg, _ideal(int(most.max(initial=0)))[most])
    best = np.zeros(sizes.size)
    np.maximum.at(best, row, seen / np.maximum(ranks, 1))
    metrics["mrr"] = _divide(best, (sizes > 0).astype(np.float64))
    return metrics


def _ideal(most: int) -> PerQuery:
    """Ideal dcg of 0..most hits, float64 ``[most + 1]``."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, most + 1) + 1))])


def _divide(numbers: npt.NDArray[np.number], by: PerQuery) -> PerQuery:
    return np.divide(numbers, by, out=np.full(numbers.size, np.nan), where=by > 0)
