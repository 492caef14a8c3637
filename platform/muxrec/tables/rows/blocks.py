"""A table taken in blocks of rows, so that no copy of its size is made."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from muxrec.tables.rows.protocol import ServedRows

BLOCK = 2**18
"""Numbers in a block: the few arrays of this size that quantising needs stay in the cache."""


def row_blocks(rows: int, width: int, *, multiple: int = 1) -> Iterator[slice]:
    """Slices that cover ``rows`` rows, each but the last of a ``multiple`` of rows."""
    step = max(1, BLOCK // (width * multiple)) * multiple
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def dense_rows(served: ServedRows, device: torch.device) -> Tensor:
    """All rows of ``served``, looked up block after block, float32 ``[R, d]``."""
    dense = torch.empty(served.rows, served.width, device=device)
    for block in row_blocks(served.rows, served.width):
        dense[block] = served(torch.arange(block.start, block.stop, device=device))
    return dense


def check_weight(weight: Tensor, *, what: str, largest: float = float("inf")) -> Tensor:
    """``weight`` without its gradient.

    Args:
        weight: A table.
        what: The format, for the message.
        largest: Largest magnitude that the format holds; infinity lets everything pass.

    Raises:
        ValueError: It is not float32 ``[R, d]`` with R and d of at least 1, or holds a number that
            is not finite or above ``largest``.
    """
    if weight.dtype != torch.float32 or weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(
            f"{what} rows are made of float32 [rows, width], both at least 1, got "
            f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
        )
    weight = weight.detach()
    if largest != float("inf"):
        low, high = weight.aminmax()
        if not (-low <= largest and high <= largest):
            row = int(((weight.abs() <= largest).logical_not_()).any(dim=1).nonzero()[0])
            raise ValueError(
                f"{what} rows hold numbers up to {largest:g} in magnitude, row {row} has "
                f"{float(weight[row].abs().max()):g}: serve the table as fp32, or mend its training"
            )
    return weight


def refuse_group(group: int, *, what: str) -> None:
    """Refuse a group of a format without scales.

    Raises:
        ValueError: ``group`` is not 0.
    """
    if group != 0:
        raise ValueError(f"{what} rows have no scales to share: leave group at 0, got {group}")
