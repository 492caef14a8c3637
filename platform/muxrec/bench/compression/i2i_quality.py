"""Quality of item vectors: the whole catalogue ranked, over all queries and over the warm ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from muxrec.evaluation.metrics import PerQuery, evaluate_vectors
from muxrec.evaluation.relevance import Relevance


def quality_of(
    vectors: npt.NDArray[np.floating],
    relevance: Relevance,
    *,
    ks: Sequence[int],
    is_cold: npt.NDArray[np.bool_],
) -> dict[str, float]:
    """Means of ndcg and recall at ``ks``, as ``muxrec eval`` has them: ``recall@10``, and so on.

    Args:
        vectors: Item vectors, ``[C, D]`` in catalogue order.
        relevance: Queries and what is right.
        ks: Cut-offs.
        is_cold: Bool ``[C]``; queries that are not cold are also measured alone, as
            ``warm recall@10``. Without any these are NaN.
    """
    found = evaluate_vectors(vectors, relevance, ks=ks).metrics
    everyone = np.ones(len(relevance), dtype=bool)
    parts = {"": everyone, "warm ": ~is_cold[relevance.queries]}
    names = {f"{kind}@{k}": f"{kind}_at_{k}" for k in ks for kind in ("ndcg", "recall")}
    return {
        prefix + shown: _mean(found[name][queries])
        for prefix, queries in parts.items()
        for shown, name in names.items()
    }


def _mean(values: PerQuery) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else float("nan")
