"""From pooled reads to the features' vectors: the steps that every engine ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from muxrec.tables.lowering import Lowering
from muxrec.tables.methods import METHODS
from muxrec_kernels.multiplexed_lookup import POOLING_EXPONENTS


class Combine(nn.Module):
    """Every feature's map from its pooled reads to its vector.

    The maps lie in a list and not in a ``ModuleDict``, which refuses names such as ``type``.
    """

    def __init__(self, lowering: Lowering) -> None:
        super().__init__()
        tables = {table.name: table for table in lowering.tables}
        self.names = [feature.name for feature in lowering.features]
        declared = [(tables[f.table or ""], f) for f in lowering.features]
        self.maps = nn.ModuleList(METHODS[t.method].combine(t, f) for t, f in declared)
        # Dozens of features in a small batch: calling a module for each would be felt.
        self.is_plain = all(isinstance(module, nn.Identity) for module in self.maps)

    def forward(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Vectors, float32 ``[B, width]``, of the features that have a part, in declared order.

        Args:
            parts: Per physical table, each feature's pooled reads ``[B, P * d]``.
        """
        vectors = {}
        for name, module in zip(self.names, self.maps, strict=True):
            mine = [part[name] for part in parts if name in part]
            if mine:
                vectors[name] = module(mine[0] if len(mine) == 1 else torch.cat(mine, dim=1))
        return vectors


def divide_bags(sums: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """Summed bags ``[B, w]`` turned into ``pooling`` by their ``lengths``, int64 ``[B]``."""
    exponent = POOLING_EXPONENTS[pooling]
    if exponent == 0.0:
        return sums
    return sums * lengths.clamp(min=1).to(sums.dtype).pow(-exponent)[:, None]


def pool_padded(gathered: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool rows that were gathered for padded ids, in operations that ONNX has.

    Args:
        gathered: Rows, float32 ``[B, L, P, d]``; anything finite where the mask is 0.
        mask: 1 where an id is, else 0, float32 ``[B, L]``.
        pooling: ``sum``, ``mean`` or ``sqrt``.

    Returns:
        float32 ``[B, P * d]``; zeros where an item has no id.
    """
    sums = (gathered * mask[:, :, None, None]).sum(dim=1).flatten(1)
    counts = mask.sum(dim=1, keepdim=True).clamp(min=1.0)
    return {"sum": sums, "mean": sums / counts, "sqrt": sums / counts.sqrt()}[pooling]
