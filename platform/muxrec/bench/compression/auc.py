"""Quality of click predictions: exact AUC and log loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float:
    """Chance that a click's score is above a non-click's, a tie counting half.

    Exact, from ranks: the mean rank of tied scores makes every tied pair count half.

    Args:
        scores: Scores, ``[N]``, finite.
        labels: 1 for a click, else 0, ``[N]``.

    Raises:
        ValueError: A score is not finite, or there is no click or nothing but clicks.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: a NaN has no rank")
    clicks = int((labels > 0).sum())
    others = len(labels) - clicks
    if not clicks or not others:
        raise ValueError(f"AUC needs clicks and non-clicks, got {clicks} and {others}")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Ranks 1..N of each distinct score, the middle one of its ties.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    above = ranks[place[labels > 0]].sum() - clicks * (clicks + 1) / 2
    return float(above / (clicks * others))


def log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float:
    """Mean negative log likelihood in nats of labels 0 and 1 under logits, both ``[N]``."""
    wide = np.asarray(logits, dtype=np.float64)
    return float(np.mean(np.logaddexp(0, wide) - labels * wide))
