"""Launches of the four compositional lookups and of their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from muxrec_kernels.compositional_lookup import (
    codebook_lookup,
    multi_hash_lookup,
    quotient_remainder_lookup,
    robe_lookup,
)

ONE, EMPTY, SIXTEEN, JAGGED, LONG = [1], [0, 0], [1] * 16, [3, 0, 40], [1100]
"""Lengths of bags. The last is longer than what one program sums of a row's gradients."""


def bags(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Ids, all 0, and offsets."""
    return torch.zeros(sum(lengths), dtype=torch.int64), torch.tensor([0, *lengths]).cumsum(0)


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def factors(lengths: list[int]) -> dict[str, Any]:
    return {"weights": torch.ones(sum(lengths)), "pooling": "mean"}


def quotient_remainder(
    lengths: list[int], rows: int, width: int, *, dtype: torch.dtype = torch.float32, **options: Any
) -> None:
    arrays = leaf(rows, width, dtype=dtype), leaf(rows, width, dtype=dtype)
    quotient_remainder_lookup(*arrays, *bags(lengths), **options).sum().backward()


def multi_hash(
    lengths: list[int],
    rows: int,
    width: int,
    *,
    hashes: int,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    arrays, seeds = (leaf(rows, width, dtype=dtype), leaf(rows, hashes)), torch.arange(hashes + 1)
    multi_hash_lookup(*arrays, *bags(lengths), seeds, **options).sum().backward()


def codebook(
    lengths: list[int],
    entries: int,
    width: int,
    *,
    parts: int,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    codes, book = (
        torch.zeros(1, parts, dtype=torch.uint8),
        leaf(parts * entries, width, dtype=dtype),
    )
    codebook_lookup(codes, book, *bags(lengths), **options).sum().backward()


def robe(
    lengths: list[int],
    rows: int,
    block: int,
    *,
    width: int,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    array, seeds = leaf(rows, block, dtype=dtype), torch.arange(-(-width // block))
    robe_lookup(array, *bags(lengths), seeds, width=width, **options).sum().backward()


def all_empty() -> None:
    quotient_remainder(EMPTY, 3, 1)
    multi_hash(EMPTY, 3, 1, hashes=1)
    codebook(EMPTY, 3, 1, parts=1)
    robe(EMPTY, 3, 1, width=1)


def all_ones() -> None:
    quotient_remainder(ONE, 1, 1)
    multi_hash(ONE, 1, 1, hashes=1)
    codebook(ONE, 1, 1, parts=1)
    robe(ONE, 1, 1, width=1)


def all_sixteens() -> None:
    quotient_remainder(SIXTEEN, 16, 32, dtype=torch.float16, combine="concatenate")
    multi_hash(SIXTEEN, 16, 32, hashes=2, dtype=torch.bfloat16)
    codebook(SIXTEEN, 16, 16, parts=4, dtype=torch.float16)
    robe(SIXTEEN, 16, 16, width=64, dtype=torch.bfloat16)


def all_jagged() -> None:
    quotient_remainder(JAGGED, 7, 24, **factors(JAGGED))
    multi_hash(JAGGED, 7, 24, hashes=3, **factors(JAGGED))
    codebook(JAGGED, 7, 12, parts=3, **factors(JAGGED))
    robe(JAGGED, 7, 12, width=30, **factors(JAGGED))


CALLS = {
    "one of everything": all_ones,
    "no ids": all_empty,
    "multiples of 16": all_sixteens,
    "weighted means": all_jagged,
    "one long bag of one row": lambda: quotient_remainder(LONG, 1, 1, combine="add"),
}
