"""InfoNCE and its multi-positive form."""

from __future__ import annotations

from torch import Tensor

from muxrec.losses.engine import Scores, Target, row_sums


def cross_entropy(scores: Scores, target: Target) -> Tensor:
    """Cross-entropy of each row's softmax against its positives' shares, float32 ``[Q']``.

    With one positive per row this is InfoNCE; with several it is the "out" form of supervised
    contrastive learning, weighted. Shares add up to 1, so it is the row's log-sum-exp minus the
    positives' weighted mean score.

    Args:
        scores: Scores of the asking queries.
        target: Their positives.

    Source: Supervised Contrastive Learning (arXiv 2004.11362), equation 2.
    """
    positive = row_sums(target.share * scores.values[target.rows, target.columns], target)
    return scores.values.logsumexp(dim=1) - positive
