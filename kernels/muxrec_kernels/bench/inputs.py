"""Inputs of measured lookups: ids by popularity, lengths of bags."""

from __future__ import annotations

import torch
from torch import Tensor

SETS = 4
"""Input sets that calls rotate through, so that no cache answers for the last call's rows."""
KINDS = {"uniform": 0.0, "zipf-1.05": 1.05, "zipf-1.2": 1.2}
"""Distribution of ids -> exponent of its law."""
JAGGED_MEAN = 20


def draw_ids(
    count: int, *, distinct: int, kind: str, seed: int, device: torch.device | str
) -> Tensor:
    """Random ids in ``[0, distinct)``, int64 ``[count]``.

    Under a Zipf law id k is drawn in proportion to ``(k + 1) ** -exponent``, by inverting the
    integral of the continuous law; the first ids are the popular ones, and hashing spreads them.

    Args:
        count: Ids to draw.
        distinct: Ids to draw from.
        kind: A key of ``KINDS``.
        seed: Seed of the draw.
        device: Where the ids are made.
    """
    generator = torch.Generator(device).manual_seed(seed)
    if (exponent := KINDS[kind]) == 0.0:
        return torch.randint(distinct, (count,), generator=generator, device=device)
    uniform = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    power = 1.0 - exponent
    ends = (distinct + 1.0) ** power
    places = (1.0 + uniform * (ends - 1.0)) ** (1.0 / power)
    return (places.long() - 1).clamp_(0, distinct - 1)


def draw_lengths(bags: int, *, length: int | str, seed: int) -> Tensor:
    """Lengths of bags, int64 ``[bags]`` on the CPU.

    Args:
        bags: Number of bags.
        length: The same for all, or ``jagged``: exponential with a mean of 20, at most 100, and a
            bag in twenty empty.
        seed: Seed of jagged lengths.
    """
    if isinstance(length, int):
        return torch.full((bags,), length, dtype=torch.int64)
    if length != "jagged":
        raise ValueError(f"length must be a number or 'jagged', got {length!r}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(bags).exponential_(1.0 / JAGGED_MEAN, generator=generator)
    drawn = drawn.round().clamp_(1, 5 * JAGGED_MEAN).long()
    empty = torch.rand(bags, generator=generator) < 0.05
    return drawn.masked_fill(empty, 0)


def offsets_of(lengths: Tensor, device: torch.device | str) -> Tensor:
    """Starts of bags, int64 ``[bags + 1]`` on ``device``."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(device)
