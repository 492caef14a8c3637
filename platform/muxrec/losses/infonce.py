"""InfoNCE and its multi-positive form."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(scores: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of the row's softmax against its normalised positive weights, float32 ``[Q]``.

    With one positive per row this is InfoNCE; with several it is the "out" form of supervised
    contrastive learning, weighted.

    Args:
        scores: float32 ``[Q, C]``, -inf at ignored entries.
        weight: float32 ``[Q, C]``, at least one entry of each row above 0, 0 where scores are -inf.

    Source: Supervised Contrastive Learning (arXiv 2004.11362), equation 2.
    """
    log_share = torch.log_softmax(scores, dim=1).masked_fill(weight == 0, 0.0)
    return -(weight * log_share).sum(dim=1) / weight.sum(dim=1)


DIVERGENCES = {"cross_entropy": cross_entropy}
"""Name -> divergence; the engine's contract test runs over every entry."""
