"""Jagged ids as tensors: what every table reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from muxrec.features.arrays import Jagged


class Bags(NamedTuple):
    """Bags of raw ids of one feature for B items.

    Attributes:
        ids: Raw ids, int64 ``[N]``; bag b is ``ids[offsets[b]:offsets[b + 1]]``.
        offsets: Bag starts, int64 ``[B + 1]``, rising from 0 to N; an empty bag is a missing value.
        weights: Weight of each id, float32 ``[N]``, at least 0 and without gradient; None for 1.
            ``sum`` adds weighted vectors, ``mean`` divides by the sum of the weights, ``sqrt`` by
            the root of the sum of their squares.
    """

    ids: Tensor
    offsets: Tensor
    weights: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of bags."""
        return self.offsets.numel() - 1

    def lengths(self) -> Tensor:
        """Ids per bag, int64 ``[B]``."""
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> Bags:
        """The same bags on ``device``."""
        weights = None if self.weights is None else self.weights.to(device)
        return Bags(self.ids.to(device), self.offsets.to(device), weights)


def bags_from_jagged(jagged: Jagged, device: torch.device | str = "cpu") -> Bags:
    """The bags of an encoded feature, as tensors on ``device``; no copy on the CPU."""
    ids, offsets = torch.from_numpy(jagged.ids), torch.from_numpy(jagged.offsets)
    return Bags(ids, offsets).to(device)


def bags_from_lists(values: list[list[int]], weights: list[list[float]] | None = None) -> Bags:
    """Bags of Python lists, one per item; an empty list is an empty bag."""
    lengths = torch.tensor([0, *map(len, values)], dtype=torch.int64)
    ids = torch.tensor([i for bag in values for i in bag], dtype=torch.int64)
    if weights is None:
        return Bags(ids, lengths.cumsum(0))
    factors = torch.tensor([w for bag in weights for w in bag], dtype=torch.float32)
    return Bags(ids, lengths.cumsum(0), factors)


def join_weights(parts: list[Bags]) -> Tensor | None:
    """The weights of ``parts`` one after another, 1 where a part has none; None if none has."""
    if all(part.weights is None for part in parts):
        return None
    return torch.cat(
        [torch.ones(p.ids.shape[0]) if p.weights is None else p.weights for p in parts]
    )
