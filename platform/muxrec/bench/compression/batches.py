"""Batches of impressions: columns laid out once as tensors, sliced by position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from muxrec.bench.compression.clicks import ClickData
from muxrec.features.arrays import Jagged
from muxrec.tables.bags import Bags, bags_from_jagged


class ClickBatch(NamedTuple):
    """Some impressions.

    Attributes:
        sparse: Feature name -> bags of B impressions.
        labels: float32 ``[B]``.
    """

    sparse: dict[str, Bags]
    labels: Tensor


class ClickBatches:
    """Impressions by position.

    A column with one id per impression is kept without offsets, which are 0 to B for any slice.

    Args:
        data: The task.
    """

    def __init__(self, data: ClickData) -> None:
        self._single: dict[str, Tensor] = {}
        self._bags: dict[str, Bags] = {}
        for name, column in data.columns.items():
            if isinstance(column, Jagged):
                self._bags[name] = bags_from_jagged(column)
            else:
                self._single[name] = torch.from_numpy(column).contiguous()
        self._labels = torch.from_numpy(data.labels)

    def take(self, positions: Tensor) -> ClickBatch:
        """The impressions at ``positions``, int64 ``[B]``, in that order."""
        offsets = torch.arange(len(positions) + 1)
        sparse = {name: Bags(ids[positions], offsets) for name, ids in self._single.items()}
        sparse |= {name: _take_bags(bags, positions) for name, bags in self._bags.items()}
        return ClickBatch(sparse, self._labels[positions])


def _take_bags(bags: Bags, positions: Tensor) -> Bags:
    lengths = bags.lengths()[positions]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shifts = bags.offsets[:-1][positions] - offsets[:-1]
    places = torch.arange(int(offsets[-1])) + shifts.repeat_interleave(lengths)
    return Bags(bags.ids[places], offsets)
