"""Correction for the probability with which an item becomes an in-batch candidate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def log_inclusion(frequency: np.ndarray, pairs: int) -> Tensor:
    """Log probability that an item is among a batch's distinct items, float32 ``[C]``.

    Candidates are distinct, so the probability is ``1 - (1 - f / 2) ** (2 * pairs)``, not the
    expected count; a popular item that is in every batch needs no further correction.

    Args:
        frequency: Expected appearances per pair, on either side, float64 ``[C]`` in ``[0, 2]``.
        pairs: Pairs per batch.

    Source: Sampling-Bias-Corrected Neural Modeling (Yi et al., RecSys 2019), for distinct items.
    """
    share = np.clip(frequency / 2.0, 1e-12, 1.0 - 1e-12)
    inclusion = -np.expm1(2 * pairs * np.log1p(-share))
    return torch.from_numpy(np.log(np.maximum(inclusion, 1e-12)).astype(np.float32))
