"""The exact value above which a wanted number of numbers lie, also over many processes.

Two passes of counting by the upper and the lower half of the bits need no sort and exchange 65,536
counts, whatever the size of the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from muxrec.tables.methods.sampling import is_shared

HALF = 16
BINS = 2**HALF
BLOCK = 2**22
"""Numbers that are looked at at once."""
SPARSE_AT = 0.9
"""Share of a stage after which the wanted density is reached."""
STEEPNESS = math.log(100)
"""As of the published ``1 - 0.99 ** (t / 100)`` over 46,000 steps."""


def sparsity_at(share: float, density: float, *, warm_up: float) -> float:
    """Share of the numbers that are to be zero after ``share`` of the stage, rising ever slower."""
    done = min(1.0, max(0.0, (share - warm_up) / (SPARSE_AT - warm_up)))
    return (1 - density) * (1 - math.exp(-STEEPNESS * done)) / (1 - math.exp(-STEEPNESS))


def cut_above(parts: Sequence[Tensor], keep: int, *, over_ranks: bool = False) -> float:
    """The largest number that is not among the ``keep`` largest; ``-inf`` where all are kept.

    At most ``keep`` numbers are larger than it: of equal ones none is, or all are.

    Args:
        parts: float32 arrays of any shape, without NaN; may hold nothing.
        keep: Numbers to keep, at least 0.
        over_ranks: Whether every process has parts of its own, and calls this alike.
    """
    device = parts[0].device if parts else torch.device("cpu")
    high = torch.zeros(BINS, dtype=torch.int64, device=device)
    for keys in _keys(parts):
        high += torch.bincount((keys >> HALF) + BINS // 2, minlength=BINS)
    upper, keep = _bin_of(_summed(high, over_ranks=over_ranks), keep)
    if upper is None:
        return -math.inf
    low = torch.zeros_like(high)
    for keys in _keys(parts):
        mine = keys[(keys >> HALF) == upper - BINS // 2]
        low += torch.bincount(mine & (BINS - 1), minlength=BINS)
    lower, _ = _bin_of(_summed(low, over_ranks=over_ranks), keep)
    key = torch.tensor((upper - BINS // 2) * BINS + (lower or 0), dtype=torch.int32)
    return float(_swapped(key).view(torch.float32))


def _keys(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Integers in the order of the numbers, int32, block by block."""
    for part in parts:
        for block in part.split(max(1, BLOCK // max(1, part[:1].numel()))):
            # Adding 0 makes -0 and 0 the same number.
            yield _swapped((block.float() + 0.0).contiguous().view(torch.int32)).flatten()


def _swapped(bits: Tensor) -> Tensor:
    """From the bits of floats to integers in the same order, and back."""
    return bits ^ ((bits >> 31) & (2**31 - 1))


def _summed(counts: Tensor, *, over_ranks: bool) -> Tensor:
    if over_ranks and is_shared():
        dist.all_reduce(counts)
    return counts


def _bin_of(counts: Tensor, keep: int) -> tuple[int | None, int]:
    """The highest bin with which more than ``keep`` are counted, and how many it may keep."""
    above = counts.flip(0).cumsum(0)
    place = int((above <= keep).sum())
    if place == len(counts):
        return None, keep
    upper = len(counts) - 1 - place
    return upper, keep - int(above[place] - counts[upper])
