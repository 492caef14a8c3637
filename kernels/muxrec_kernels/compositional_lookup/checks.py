"""What the lookups refuse; values are trusted, since reading them would wait for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from muxrec_kernels.compositional_lookup.reference import COMBINES
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS

MAX_ROWS = 2**31


def check_arrays(arrays: Mapping[str, Tensor], *, same_width: bool = False) -> None:
    """Arrays of rows of floating-point numbers.

    Raises:
        ValueError: One of them is not, or their widths differ where they have to be the same.
    """
    for name, array in arrays.items():
        if array.ndim != 2 or not 1 <= array.shape[0] < MAX_ROWS or not array.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous [R, d], 1 <= R < 2**31, got {tuple(array.shape)}"
            )
        if not array.dtype.is_floating_point or array.shape[1] == 0:
            raise ValueError(
                f"{name} must hold floating-point rows of a number or more, got {array.dtype} "
                f"{tuple(array.shape)}"
            )
    if same_width and len({array.shape[1] for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())
        raise ValueError(f"rows must have the same width, got {found}")


def check_combine(combine: str) -> None:
    """A known way to compose two rows.

    Raises:
        ValueError: It is not known.
    """
    if combine not in COMBINES:
        raise ValueError(f"combine must be one of {', '.join(COMBINES)}, got {combine!r}")


def check_hashes(factors: Tensor, seeds: Tensor) -> None:
    """One seed per factor and one for the factors.

    Raises:
        ValueError: There are others.
    """
    if not _are_seeds(seeds, factors.shape[1] + 1):
        raise ValueError(
            f"seeds must be contiguous int64 [{factors.shape[1] + 1}], one per factor and one for "
            f"the factors, got {seeds.dtype} {tuple(seeds.shape)}"
        )


def check_codes(codes: Tensor, codebook: Tensor) -> None:
    """Bytes per id, and as many entries in every part of the codebook.

    Raises:
        ValueError: They do not fit each other.
    """
    is_sound = codes.ndim == 2 and codes.dtype == torch.uint8 and codes.is_contiguous()
    if not is_sound or codes.shape[1] == 0:
        raise ValueError(
            f"codes must be contiguous uint8 [V, P], got {codes.dtype} {tuple(codes.shape)}"
        )
    if codebook.shape[0] % codes.shape[1]:
        raise ValueError(
            f"codebook must have as many entries for each of {codes.shape[1]} parts, got "
            f"{codebook.shape[0]} rows"
        )


def check_pieces(array: Tensor, seeds: Tensor, width: int) -> None:
    """As many seeds as pieces, and an array that a hash can point into.

    Raises:
        ValueError: There are others.
    """
    block = array.shape[1]
    pieces = -(-width // block)
    if width < 1 or not _are_seeds(seeds, pieces):
        raise ValueError(
            f"seeds must be contiguous int64 [{pieces}] for {width} numbers in pieces of {block}, "
            f"got {seeds.dtype} {tuple(seeds.shape)}"
        )
    if array.numel() >= MAX_ROWS:
        raise ValueError(f"array must have fewer than 2**31 numbers, got {array.numel()}")


def check_bags(
    name: str, ids: Tensor, offsets: Tensor, weights: Tensor | None, pooling: str
) -> None:
    """Jagged ids with their pooling.

    Raises:
        ValueError: A shape, dtype or the pooling is not as described.
    """
    for what, value in ((name, ids), ("offsets", offsets)):
        if value.ndim != 1 or value.dtype != torch.int64 or not value.is_contiguous():
            raise ValueError(
                f"{what} must be contiguous int64 [n], got {value.dtype} {tuple(value.shape)}"
            )
    if offsets.numel() < 2:
        raise ValueError(f"offsets must have B + 1 entries, B >= 1, got {offsets.numel()}")
    if weights is not None and not _is_plain(weights, ids):
        raise ValueError(
            f"weights must be one contiguous float32 factor per id without gradient, got "
            f"{weights.dtype} {tuple(weights.shape)} for {ids.numel()} ids, "
            f"requires_grad={weights.requires_grad}"
        )
    if pooling not in POOLING_EXPONENTS:
        raise ValueError(f"pooling must be one of {', '.join(POOLING_EXPONENTS)}, got {pooling!r}")


def _is_plain(weights: Tensor, ids: Tensor) -> bool:
    is_float = weights.dtype == torch.float32 and weights.is_contiguous()
    return is_float and weights.shape == ids.shape and not weights.requires_grad


def _are_seeds(seeds: Tensor, count: int) -> bool:
    return seeds.dtype == torch.int64 and seeds.shape == (count,) and seeds.is_contiguous()
