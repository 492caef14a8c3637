"""Nested vectors: a prefix is a vector too, where it was trained to be one.

Source: Matryoshka Representation Learning (arXiv 2205.13147).
"""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.recipe.model import Tower

_SMALLEST_NORM = 1e-6


def trained_widths(tower: Tower) -> tuple[int, ...]:
    """Widths at which a vector of this tower may be cut, rising, the full width last.

    Raises:
        TrainingError: ``tower.matryoshka`` does not rise or leaves ``[1, width]``.
    """
    widths = tuple(w for w in tower.matryoshka if w != tower.width)
    if list(widths) != sorted(set(widths)) or any(not 0 < w < tower.width for w in widths):
        raise TrainingError(
            f"tower.matryoshka must rise within 1..{tower.width}, got {list(tower.matryoshka)}"
        )
    return (*widths, tower.width)


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` ``[..., D]`` divided by their norm; zeros stay zeros, with a zero gradient."""
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norm.clamp_min(_SMALLEST_NORM)


def cut(vectors: Tensor, width: int, *, trained: tuple[int, ...]) -> Tensor:
    """The first ``width`` numbers of each vector, float32 ``[..., width]``, unit norm again.

    Args:
        vectors: float32 ``[..., D]``.
        width: Wanted width.
        trained: Widths that training made, from ``trained_widths``.

    Raises:
        TrainingError: No loss was ever applied at ``width``, so its prefix means nothing.
    """
    if width not in trained:
        raise TrainingError(
            f"width {width} was not trained; this tower has {', '.join(map(str, trained))}: "
            "add it to tower.matryoshka and train again"
        )
    return unit(vectors[..., :width])
