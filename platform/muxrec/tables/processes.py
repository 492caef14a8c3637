"""The processes that train together, and what each of them has.

The gathering functions are collectives: all processes call them alike. In one process each returns
what it was given.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def this_rank() -> int:
    """Number of this process among them; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_counts(count: int, device: torch.device) -> list[int]:
    """Every process's ``count``, in the order of the ranks."""
    if world_size() == 1:
        return [count]
    found = torch.zeros(world_size(), dtype=torch.int64, device=device)
    found[this_rank()] = count
    dist.all_reduce(found)
    return found.tolist()


def gather_uneven(values: Tensor, counts: list[int]) -> list[Tensor]:
    """Every process's ``values``, ``[counts[rank], ...]``, in the order of the ranks.

    gloo gathers equal shapes only, so they are filled up to the largest.
    """
    if len(counts) == 1 or not any(counts):
        return [values for _ in counts]
    filled = values.new_zeros(max(counts), *values.shape[1:])
    filled[: values.shape[0]] = values
    parts = [torch.empty_like(filled) for _ in counts]
    dist.all_gather(parts, filled)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]
