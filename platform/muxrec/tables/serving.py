"""The frozen form of tables for the exported graph: padded lookups only, int8 where declared.

An int8 row is ``codes * scale`` with one float32 scale per row and codes in [-127, 127], so zero
stays zero and the largest error of a number is half a scale.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.features import pool_padded
from muxrec.tables.reference import ReferenceTables, TableGroup

CODES = 127


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 ``[R, d]`` and scales float32 ``[R]`` of float32 ``rows``; zeros for zero rows."""
    scales = rows.abs().amax(dim=1) / CODES
    divisor = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (rows / divisor[:, None]).round().clamp(-CODES, CODES).to(torch.int8), scales


class ServedGroup(nn.Module):
    """One physical table, float32 or int8."""

    weight: Tensor
    scales: Tensor

    def __init__(self, group: TableGroup) -> None:
        super().__init__()
        self.group, self.poolings = group.group, group.poolings
        self.address = group.address
        rows = group.weight.detach().clone()
        self.int8 = group.group.table.int8
        codes, scales = quantise_rows(rows) if self.int8 else (rows, rows.new_zeros(0))
        self.register_buffer("weight", codes)
        self.register_buffer("scales", scales)

    def lookup_padded(self, name: str, ids: Tensor, mask: Tensor) -> Tensor:
        """Pooled reads of feature ``name``, float32 ``[B, P * d]``."""
        rows, mask = self.address.padded(name, ids, mask)
        gathered = F.embedding(rows, self.weight)
        if self.int8:
            gathered = gathered.to(torch.float32) * self.scales[rows][..., None]
        return pool_padded(gathered, mask, self.poolings[name])


class ServedTables(nn.Module):
    """What the exported graph reads: a frozen copy of reference tables.

    Args:
        tables: Trained tables; later training does not change this copy.
    """

    def __init__(self, tables: ReferenceTables) -> None:
        super().__init__()
        self.lowering = tables.lowering
        self.groups = nn.ModuleList(ServedGroup(group) for group in tables.table_groups())
        self.combine = tables.combine

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return self.lowering.widths

    def lookup_padded(self, name: str, ids: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`muxrec.tables.reference.ReferenceTables.lookup_padded`."""
        groups = [cast(ServedGroup, group) for group in self.groups]
        parts = [
            {name: group.lookup_padded(name, ids, mask)}
            for group in groups
            if name in group.group.features
        ]
        return self.combine(parts)[name]

    def table_bytes(self) -> int:
        """Bytes of rows and scales as they are served."""
        groups = [cast(ServedGroup, group) for group in self.groups]
        return sum(g.weight.nbytes + g.scales.nbytes for g in groups)
