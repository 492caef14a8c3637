"""Frozen standardisation of a dense input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.features.arrays import Dense

_LIMIT = 8.0


class Standardise(nn.Module):
    """Zero mean and unit deviation per number, from statistics of the training items.

    Frozen buffers instead of a LayerNorm: the coordinates of pretrained vectors and of image
    statistics differ in offset and scale by orders of magnitude, the same way for every item, and
    an item's own norm (which LayerNorm removes) stays. A number that never varied in training is
    set to 0, since nothing was learned about it, and outliers are clamped at 8 deviations: rare
    histogram bins have tiny deviations and would drown the rest.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    @torch.no_grad()
    def fit(self, dense: Dense) -> None:
        """Take mean and deviation from the present rows of ``dense``; without any, do nothing."""
        values = dense.values[dense.present]
        if not len(values):
            return
        deviation = values.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > 1e-7, 1.0 / np.maximum(deviation, 1e-7), 0.0)
        self.mean.copy_(torch.from_numpy(values.mean(axis=0, dtype=np.float64)))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, values: Tensor) -> Tensor:
        """Standardised values, float32, the shape of ``values`` ``[B, W]``."""
        return ((values.float() - self.mean) * self.scale).clamp(-_LIMIT, _LIMIT)
