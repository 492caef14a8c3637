"""What gets recommended at all: coverage of the catalogue, hubs, the share of popular items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from muxrec.evaluation.scoring import NEVER, Scorer, Scores, score_blocks

LIST_LENGTH = 10
MAX_QUERIES = 10_000
POPULAR_ITEMS = 50


@dataclass(frozen=True)
class Exposure:
    """Who appears in the top ten of everybody.

    Attributes:
        coverage: Share of the catalogue that appears in at least one list.
        hub_skew: Skewness of N_10, the number of lists that an item appears in, over all items,
            those never shown included; large when a few hubs are in every list.
        popular_share: Share of the list places taken by the 50 items with most training events.
        shown: N_10 of every item, int64 ``[C]``.
    """

    coverage: float
    hub_skew: float
    popular_share: float
    shown: npt.NDArray[np.int64]


def measure_exposure(
    scorer: Scorer, train_events: npt.NDArray[np.int64], *, max_queries: int = MAX_QUERIES
) -> Exposure:
    """Exposure over the top ten lists of every item, or of a fixed sample of large catalogues.

    Args:
        scorer: Any scorer over C items.
        train_events: Training events per item, int64 ``[C]``; decides what is popular.
        max_queries: Above this number of items a seeded sample of them is queried.
    """
    queries = np.arange(scorer.count)
    if scorer.count > max_queries:
        sample = np.random.default_rng(0).choice(scorer.count, max_queries, replace=False)
        queries = np.sort(sample)
    lists = top_lists(scorer, queries, k=LIST_LENGTH)
    shown = np.bincount(lists[lists >= 0], minlength=scorer.count)
    popular = np.lexsort((np.arange(scorer.count), -train_events))[:POPULAR_ITEMS]
    places = max(1, int(shown.sum()))
    return Exposure(
        coverage=float((shown > 0).mean()) if scorer.count else float("nan"),
        hub_skew=skewness(shown),
        popular_share=float(shown[popular].sum() / places),
        shown=shown,
    )


def skewness(shown: npt.NDArray[np.int64]) -> float:
    """Skewness of N_k over all items; 0 when every item is shown equally often."""
    return float(stats.skew(shown)) if np.unique(shown).size > 1 else 0.0


def top_lists(scorer: Scorer, queries: npt.NDArray[np.int64], *, k: int) -> npt.NDArray[np.int64]:
    """The k best items per query, int64 ``[Q, k]``, best first, -1 where there are fewer.

    Unlike the metrics, a list must show something: equal scores go by catalogue position.
    """
    lists = np.full((len(queries), k), -1, dtype=np.int64)
    for start, scores in score_blocks(scorer, queries):
        best = _best(scores, min(k, scorer.count))
        lists[start : start + len(scores), : best.shape[1]] = best
    return lists


def _best(scores: Scores, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k best of each row, by one integer per entry: score first, then position.

    Distinct integers make the partition deterministic, which argpartition over ties is not.
    """
    count = scores.shape[1]
    bits = (scores + np.float32(0)).view(np.int32)
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    keys = (rising.astype(np.int64) << 32) | np.arange(count - 1, -1, -1)
    top = np.sort(np.partition(keys, count - k, axis=1)[:, count - k :], axis=1)[:, ::-1]
    best = count - 1 - (top & 0xFFFFFFFF)
    return np.where(np.take_along_axis(scores, best, axis=1) > NEVER, best, -1)
