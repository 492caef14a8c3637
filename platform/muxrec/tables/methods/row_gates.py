"""Learned thresholds for rows and random widths: the supernet of ``optembed``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from muxrec.tables.methods.counted import CountedDraws


class StepFunction(torch.autograd.Function):
    """1 above 0 and 0 otherwise, with a slope that fades out at a distance of 1.

    Source: the long-tailed estimator of Liu et al., Dynamic Sparse Training, ICLR 2020.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Steps of ``values``, any shape."""
        ctx.save_for_backward(values)
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """``2 - 4 |x|`` up to 0.4, then 0.4 up to 1."""
        far = ctx.saved_tensors[0].abs()
        slope = torch.where(far <= 0.4, 2 - 4 * far, torch.where(far <= 1, 0.4, 0.0))
        return gradients[0] * slope


class RowGate(nn.Module):
    """Rows whose absolute sum is above a learned threshold, cut to a prefix of their numbers.

    While training the width of the prefix is drawn for every batch, so that all prefixes learn to
    stand alone; otherwise it is ``prefix``, which a search may set.

    Args:
        width: Numbers per row, d.
        sparsity: Weight of the loss term that raises the threshold.
        generator: Seeds the widths.
    """

    prefix: Tensor

    def __init__(self, width: int, *, sparsity: float, generator: torch.Generator) -> None:
        super().__init__()
        self.width, self.sparsity = width, sparsity
        self.threshold = nn.Parameter(torch.zeros(1))
        self.draws = CountedDraws(generator)
        self.register_buffer("prefix", torch.tensor(width))

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows ``[N, d]`` to vectors ``[N, d]``."""
        above = rows.abs().sum(dim=1, keepdim=True) - self.threshold
        steps = StepFunction.apply(above) if self.training else (above > 0).to(rows.dtype)
        return rows * steps * self._columns(rows)

    def _columns(self, rows: Tensor) -> Tensor:
        """Which numbers are read, 0 or 1 ``[d]``."""
        prefix = self.prefix
        if self.training:
            prefix = torch.randint(1, self.width + 1, (1,), generator=self.draws()).to(rows.device)
        return (torch.arange(self.width, device=rows.device) < prefix).to(rows.dtype)

    def penalty(self) -> Tensor:
        """What a low threshold costs."""
        return self.sparsity * (-self.threshold).exp().sum()

    @torch.no_grad()
    def kept(self, rows: Tensor) -> Tensor:
        """Whether each row ``[n, d]`` is above the threshold, bool ``[n]``; one at least."""
        norms = rows.abs().sum(dim=1)
        is_kept = norms > self.threshold.to(norms.device)
        is_kept[norms.argmax()] = True
        return is_kept
