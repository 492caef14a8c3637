"""What shorter vectors are worth: recall of the prefixes that a Matryoshka head was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from muxrec.evaluation.bootstrap import interval
from muxrec.evaluation.metrics import evaluate_vectors
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import unit_rows


def by_width(
    vectors: Sequence[npt.NDArray[np.float32]],
    relevance: Relevance,
    *,
    widths: Sequence[int],
    ks: Sequence[int],
    resamples: int,
) -> list[dict[str, Any]]:
    """Metrics of the first ``w`` numbers of every vector, made unit length again.

    Args:
        vectors: One array per seed, float32 ``[C, D]``.
        relevance: Ground truth.
        widths: Widths that the tower was trained for, D itself among them.
        ks: Cut-offs.
        resamples: Bootstrap resamples.

    Returns:
        Per width, rising: ``width`` and ``metrics`` -> mean, low, high, queries; seeds averaged.
    """
    return [
        {"width": width, "metrics": _metrics(vectors, relevance, width, ks, resamples)}
        for width in sorted(widths)
    ]


def _metrics(
    vectors: Sequence[npt.NDArray[np.float32]],
    relevance: Relevance,
    width: int,
    ks: Sequence[int],
    resamples: int,
) -> dict[str, Any]:
    runs = [evaluate_vectors(unit_rows(v[:, :width]), relevance, ks=ks).metrics for v in vectors]
    return {
        name: asdict(interval(np.mean([run[name] for run in runs], axis=0), resamples=resamples))
        for name in runs[0]
    }
