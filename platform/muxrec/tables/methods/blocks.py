"""Which blocks of rows are nearly the same, and which to merge until few enough are left.

Source: Zhou et al., VLDB 2022; L2 hashing after Datar et al., SCG 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor

BANDS, HASHES = 90, 8
"""Bands, of each of which one hit makes two blocks candidates, and hashes in a band."""
BUCKET = 9.0
"""Width of a hash's buckets in units of the distance: 0.09 and 0.01 in the published code."""
ALIKE = 0.7
"""Share of the numbers that must be within the distance."""
EXACT = 2048
"""As many clusters are compared with one another; of more, each with its neighbours only."""
LINES, REACH = 8, 2
"""Lines that clusters are ordered along, and neighbours looked at on each side."""


def alike_blocks(blocks: Tensor, *, distance: float, generator: torch.Generator) -> Tensor:
    """The block that each block can share, int64 ``[K]``; its own number where there is none.

    Blocks are visited in the order of their 75th percentile. A block that others share stays what
    it is, so every merged block is alike the very block that it shares, whatever the chain.

    Args:
        blocks: float32 ``[K, E]``; NaN where the last block has no rows.
        distance: Two numbers this close count as equal, above 0.
        generator: Draws the hashes.
    """
    high = blocks.nan_to_num().kthvalue(-(-3 * blocks.shape[1] // 4), dim=1).values
    order = high.argsort(stable=True)
    ordered = blocks[order]
    leader = torch.arange(len(blocks))
    is_shared = torch.zeros(len(blocks), dtype=torch.bool)
    for _ in range(BANDS):
        heads = (leader == torch.arange(len(leader))).nonzero()[:, 0]
        first = _first_in_bucket(ordered[heads], distance, generator, is_shared[heads])
        is_other = (heads != heads[first]) & ~is_shared[heads]
        mine, theirs = heads[is_other], heads[first[is_other]]
        fits = are_alike(ordered[mine], ordered[theirs], distance)
        leader[mine[fits]] = theirs[fits]
        is_shared[theirs[fits]] = True
    found = torch.empty_like(order)
    found[order] = order[leader]
    return found


def are_alike(left: Tensor, right: Tensor, distance: float) -> Tensor:
    """Whether enough numbers of both ``[P, E]`` are within the distance, bool ``[P]``."""
    close = ((left - right).abs() <= distance).sum(dim=1)
    both = (~(left.isnan() | right.isnan())).sum(dim=1)
    return close >= ALIKE * both


def _first_in_bucket(
    blocks: Tensor, distance: float, generator: torch.Generator, is_shared: Tensor
) -> Tensor:
    """For each block the place of the first one in its bucket of one band, int64 ``[K]``.

    A block that others share comes before the others, so that it is found.
    """
    size = blocks.shape[1]
    lines = torch.randn(size, HASHES, generator=generator) / size**0.5
    shift = torch.rand(HASHES, generator=generator)
    cells = (blocks.nan_to_num() @ lines / (BUCKET * distance) + shift).floor().to(torch.int64)
    # One number per cell is sorted faster than eight; what it mixes up is told apart later.
    mixed = (cells * torch.randint(2**62, (HASHES,), generator=generator)).sum(dim=1)
    _, bucket = mixed.unique(return_inverse=True)
    places = torch.arange(len(blocks))
    rank = torch.where(is_shared, places, places + len(blocks))
    first = torch.full((int(bucket.max()) + 1,), 2 * len(blocks))
    first.scatter_reduce_(0, bucket, rank, "amin")
    return first[bucket] % len(blocks)


def merge_nearest(means: Tensor, sizes: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Cluster of each of the given clusters, int64 ``[K]`` in ``[0, limit)``, by merging pairs.

    In every round the pairs that are nearest to each other merge, at the least cost first, where
    the cost is the rise of the summed squares (Ward's).

    Args:
        means: Mean of each cluster, float32 ``[K, E]``.
        sizes: Members of each, float32 ``[K]``.
        limit: Clusters wanted, at least 1.
        generator: Draws the lines that many clusters are ordered along.
    """
    home = torch.arange(len(means))
    while len(means) > limit:
        near, cost = _nearest_clusters(means, sizes, generator)
        mine = torch.arange(len(means))
        is_pair = (near[near] == mine) & (mine < near)
        is_pair[cost.argmin()] |= not bool(is_pair.any())
        pairs = is_pair.nonzero()[:, 0]
        pairs = pairs[cost[pairs].argsort(stable=True)][: len(means) - limit]
        joined = mine.clone()
        joined[near[pairs]] = pairs
        _, new = joined.unique(return_inverse=True)
        total = torch.zeros(int(new.max()) + 1).index_add_(0, new, sizes)
        sums = torch.zeros(len(total), means.shape[1]).index_add_(0, new, means * sizes[:, None])
        means, sizes, home = sums / total[:, None], total, new[home]
    return home


def _nearest_clusters(
    means: Tensor, sizes: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The cluster that each costs least to merge with, int64 ``[K]``, and the cost ``[K]``."""
    if len(means) <= EXACT:
        apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").square()
        cost = apart * (sizes * sizes[:, None] / (sizes + sizes[:, None]))
        cost.fill_diagonal_(torch.inf)
        lowest = cost.min(dim=1)
        return lowest.indices, lowest.values
    near = torch.zeros(len(means), dtype=torch.int64)
    least = torch.full((len(means),), torch.inf)
    for line in torch.randn(LINES, means.shape[1], generator=generator):
        order = (means @ line).argsort(stable=True)
        for step in (*range(-REACH, 0), *range(1, REACH + 1)):
            other = torch.empty_like(order)
            other[order] = order.roll(step)
            apart = (means - means[other]).square().sum(dim=1)
            cost = apart * (sizes * sizes[other] / (sizes + sizes[other]))
            is_less = cost < least
            near, least = torch.where(is_less, other, near), torch.where(is_less, cost, least)
    return near, least
