"""Rows of a table in training that every rank sees alike."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from muxrec.tables.methods.protocol import Access

SAMPLE = 16_384
"""Enough for 64 rows per entry of a codebook of 256; exchanged between ranks now and then."""


def is_shared() -> bool:
    """Whether several processes train together."""
    return dist.is_initialized() and dist.get_world_size() > 1


def sampled_places(total: int, most: int = SAMPLE) -> Tensor:
    """Row numbers, rising, int64 ``[min(total, most)]``, spread evenly over ``total`` rows."""
    count = min(total, most)
    return torch.arange(count) * total // max(1, count)


def counted_once(access: Access, name: str, part: Tensor) -> Tensor:
    """``part`` of the rows of table ``name``, or nothing where another process counts the same."""
    is_counted_elsewhere = is_shared() and access.is_copy(name) and dist.get_rank() > 0
    return part[:0] if is_counted_elsewhere else part


def sampled_rows(access: Access, name: str, places: Tensor, *, width: int) -> Tensor:
    """Rows ``places`` of table ``name``, float32 ``[S, width]``; a collective of all ranks.

    Args:
        access: The tables in training.
        name: Physical table.
        places: Row numbers, rising, int64 ``[S]``, on the device of the result.
        width: Numbers per row.
    """
    first, held, _ = access.local(name)
    rows, left = counted_once(access, name, held), access.first_column(name)
    found = torch.zeros(len(places), width, device=places.device)
    is_here = (places >= first) & (places < first + rows.shape[0])
    columns = slice(left, left + rows.shape[1])
    found[is_here, columns] = rows[(places[is_here] - first).to(rows.device)].to(found)
    if is_shared():
        dist.all_reduce(found)
    return found
