"""From the sums that a physical table gives to each feature's reads of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from muxrec.tables.addressing import Found
from muxrec.tables.features import divide_bags
from muxrec.tables.lowering import Group


def split_reads(
    group: Group, poolings: Mapping[str, str], sums: Tensor, found: Mapping[str, Found]
) -> dict[str, Tensor]:
    """Read-major sums ``[S * M, d]`` to each feature's reads, pooled where it is pooled."""
    size = sums.shape[0] // len(group.reads)
    wide = sums.view(len(group.reads), size, sums.shape[1]).transpose(0, 1).flatten(1)
    parts = dict(zip(group.features, wide.split(group.chunks, dim=1), strict=True))
    if group.is_per_id:
        return parts
    return {name: divide_bags(part, found[name], poolings[name]) for name, part in parts.items()}
