"""Clusters of points by k-means, in which no cluster is ever empty for long and none is NaN."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
BLOCK_NUMBERS = 2**24
"""Distances that are held at once, 64 MiB."""


def largest_divisor(width: int, most: int) -> int:
    """The largest divisor of ``width`` that is not above ``most``: pieces must be equally wide."""
    return next(d for d in range(min(width, max(1, most)), 0, -1) if width % d == 0)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Number of the nearest centroid of each point, int64 ``[N]``; the first of equals.

    Args:
        points: ``[N, d]``.
        centroids: ``[K, d]``, K at least 1.
    """
    norms = centroids.square().sum(dim=1)
    size = max(1, BLOCK_NUMBERS // len(centroids))
    found = [(norms - 2 * block @ centroids.T).argmin(dim=1) for block in points.split(size)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def k_means(
    points: Tensor, count: int, *, generator: torch.Generator, rounds: int = ROUNDS
) -> Tensor:
    """Centroids ``[count, d]`` of ``points``, which start as points drawn at random.

    Args:
        points: ``[N, d]``, N at least 1; fewer points than centroids give centroids twice.
        count: Centroids.
        generator: Draws the first centroids, on the CPU.
        rounds: Rounds of assignment and averaging.
    """
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centroids = points[order[torch.arange(count, device=points.device) % len(points)]]
    for _ in range(rounds):
        home = nearest(points, centroids)
        centroids = revived(points, means_of(points, home, centroids), home)
    return centroids


def means_of(points: Tensor, home: Tensor, centroids: Tensor) -> Tensor:
    """Mean of the points of each cluster; a centroid without points stays where it is.

    Args:
        points: ``[N, d]``.
        home: Cluster of each point, int64 ``[N]``.
        centroids: ``[K, d]``.
    """
    counts = torch.bincount(home, minlength=len(centroids))[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, home, points)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids)


def revived(
    points: Tensor, centroids: Tensor, home: Tensor, *, movable: Tensor | None = None
) -> Tensor:
    """The centroids, of which those without points are moved to the points that lie farthest off.

    Args:
        points: ``[N, d]``.
        centroids: ``[K, d]``.
        home: Centroid of each point, int64 ``[N]``.
        movable: Centroids that may be moved, bool ``[K]``; None for all.
    """
    is_dead = torch.bincount(home, minlength=len(centroids)) == 0
    if movable is not None:
        is_dead &= movable
    dead = is_dead.nonzero()[:, 0][: len(points)]
    if not dead.numel():
        return centroids
    off = (points - centroids[home]).square().sum(dim=1)
    moved = centroids.clone()
    moved[dead] = points[off.topk(dead.numel()).indices]
    return moved
