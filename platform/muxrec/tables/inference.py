"""Quantised tables for serving in a process of torch: pooled lookups without ONNX.

Two kernels hold the rows, with the same codes and levels: fbgemm's, on TorchRec's inference
modules, and this project's. Both give the same vectors but for the rounding of float32 sums.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from muxrec.tables.bags import Bags
from muxrec.tables.build import has_torchrec
from muxrec.tables.fused import FusedPart
from muxrec.tables.lowering import Group
from muxrec.tables.packed_bags import PackedBags
from muxrec.tables.reference import ReferenceTables
from muxrec_kernels.dispatch import Backend, choose_backend

logger = logging.getLogger("muxrec.tables")

KernelName = Literal["fbgemm", "muxrec"]
KERNELS: tuple[KernelName, ...] = ("fbgemm", "muxrec")


class Served(Protocol):
    """What holds quantised rows; see :class:`muxrec.tables.packed_bags.PackedBags`."""

    @property
    def served_bytes(self) -> int:
        """Bytes of all arrays."""
        ...


class InferenceTables(nn.Module):
    """The feature vectors of trained tables, looked up in quantised rows.

    Args:
        tables: Trained tables; their maps are shared, their rows are copied.
        dtype: ``int8``, ``int4`` or ``int2``.
        kernel: ``fbgemm``, whose compiled code is the fastest on a CPU, or ``muxrec``, which runs
            everywhere; None takes ``muxrec`` where Triton runs or TorchRec is not installed, and
            ``fbgemm`` elsewhere.

    Raises:
        ValueError: The kernel is unknown, or a table holds numbers that the format cannot.

    Attributes:
        kernel: The one that was taken.
    """

    def __init__(
        self, tables: ReferenceTables, *, dtype: str, kernel: KernelName | None = None
    ) -> None:
        super().__init__()
        self.vectors, self.lowering = tables.vectors, tables.lowering
        rows = {each.group.table.name: each.local().floats() for each in tables.table_groups()}
        self.kernel: KernelName = _choose(rows) if kernel is None else kernel
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        logger.info("quantised tables: dtype=%s kernel=%s", dtype, self.kernel)
        kinds = [
            tuple(group for group in self.lowering.groups if group.is_per_id == is_per_id)
            for is_per_id in (False, True)
        ]
        self.parts = nn.ModuleList(
            FusedPart(groups, _bags_of(groups, rows, dtype, self.kernel))
            for groups in kinds
            if groups
        )

    @torch.no_grad()
    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Feature name -> vectors, float32 ``[B, width]``, as :class:`ReferenceTables` gives."""
        found = self.vectors.find(sparse)
        size, poolings = self.vectors.most_ids(found), self.vectors.poolings
        read = {}
        for part in cast("list[FusedPart]", list(self.parts)):
            tables = zip(part.groups, part(sparse, found, size, poolings), strict=True)
            read.update({group.table.name: parts for group, parts in tables})
        return self.vectors([read[group.table.name] for group in self.lowering.groups], found)

    @property
    def served_bytes(self) -> int:
        """Bytes of all rows."""
        parts = cast("list[FusedPart]", list(self.parts))
        return sum(cast(Served, part.kernel).served_bytes for part in parts)


def _choose(rows: Mapping[str, Tensor]) -> KernelName:
    """Triton's kernel where it runs; elsewhere compiled code before torch operations."""
    devices = {table.device for table in rows.values()}
    if any(choose_backend(device) is Backend.TRITON for device in devices) or not has_torchrec():
        return "muxrec"
    return "fbgemm"


def _bags_of(
    groups: tuple[Group, ...], rows: Mapping[str, Tensor], dtype: str, kernel: KernelName
) -> nn.Module:
    """The rows of ``groups``; a key for every read, since a feature may read several tables."""
    tables = {group.table.name: rows[group.table.name] for group in groups}
    keys = {
        group.table.name: tuple(f"{group.table.name}/{read.key}" for read in group.reads)
        for group in groups
    }
    if kernel == "muxrec":
        return PackedBags(tables, keys, dtype=dtype)
    from muxrec.tables.quantised_bags import QuantisedBags

    return QuantisedBags(tables, keys, dtype=dtype)
