"""Rows of several widths mixed by searched weights: the supernet of ``autodim``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.methods.counted import CountedDraws
from muxrec.tables.methods.projection import Projection
from muxrec.tables.methods.protocol import Access
from muxrec.tables.methods.sampling import is_shared

COLDEST = 0.01
MEMORY = 0.99
"""Share of the running mean square that a batch leaves."""
TINY = 1e-12


class WidthMix(nn.Module):
    """One vector of rows of several widths, each projected, scaled, and weighted.

    Widths are made comparable by a running mean square of each, which is the same in training and
    evaluation and takes a batch of one id for what it is: nothing is centred, and no number depends
    on the rest of the batch. It only multiplies, so it becomes part of the rows that are chosen.

    While training, weights are drawn by Gumbel-softmax at a temperature that falls; otherwise they
    are the softmax alone.

    Args:
        widths: Numbers per row of each table, rising; the last is the vector's width.
        first_square: Mean square of first rows, above 0.
        lr: Learning rate of the weights.
        generator: Draws the first maps and seeds the weights' noise.
    """

    squares: Tensor
    temperature: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        *,
        first_square: float,
        lr: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.widths, self.lr = tuple(widths), lr
        self.maps = nn.ModuleList(
            Projection(inner, widths[-1], generator) for inner in self.widths[:-1]
        )
        self.alpha = nn.Parameter(torch.zeros(len(widths)))
        self.draws = CountedDraws(generator)
        self.register_buffer("squares", torch.full((len(widths),), first_square))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows of all widths side by side to vectors ``[N, d]``."""
        *narrow, full = rows.split(self.widths, dim=1)
        vectors = [one(part) for one, part in zip(self.maps, narrow, strict=True)]
        found = torch.stack([*vectors, full], dim=1)
        weights = self._weights() * self.scales()
        if self.training and len(rows):
            self._remember(found.detach())
        return (found * weights[:, None]).sum(dim=1)

    def _remember(self, found: Tensor) -> None:
        self.squares.lerp_(found.square().mean(dim=(0, 2)).to(self.squares), 1 - MEMORY)

    def _weights(self) -> Tensor:
        """Weight of each width ``[W]``, summing to 1."""
        if not self.training:
            return F.softmax(self.alpha / self.temperature, dim=0)
        noise = torch.empty(len(self.widths)).exponential_(generator=self.draws())
        gumbel = -noise.clamp(min=TINY).log().to(self.alpha)
        return F.softmax((F.log_softmax(self.alpha, dim=0) + gumbel) / self.temperature, dim=0)

    def scales(self) -> Tensor:
        """Factor of each width's vectors ``[W]`` that gives all widths one mean square."""
        return (self.squares.mean() / self.squares.clamp(min=TINY)).sqrt()

    def chosen(self) -> int:
        """Number of the width with the largest weight; of equals the narrowest."""
        return int(self.alpha.argmax())

    def architecture(self) -> list[nn.Parameter]:
        """The logits of the weights."""
        return [self.alpha]

    def architecture_lr(self) -> float:
        """Their learning rate."""
        return self.lr


class CoolingHook:
    """Lowers the temperature to ``COLDEST`` over the stage.

    Args:
        mixes: Maps that mix widths.
    """

    def __init__(self, mixes: Sequence[WidthMix]) -> None:
        self.mixes = tuple(mixes)

    def after_step(self, access: Access, *, step: int, share: float) -> None:  # noqa: ARG002
        """Cool down; all ranks also agree on the mean squares."""
        for mix in self.mixes:
            mix.temperature.fill_(max(COLDEST, 1 - (1 - COLDEST) * share))
            if is_shared():
                dist.all_reduce(mix.squares)
                mix.squares /= dist.get_world_size()
