"""Compositional lookups, the maths: compose every id's vector from small arrays, pool each bag.

Rows are gathered, composed in float32 (float64 from float64 arrays) and summed bag by bag; the
gradients of all arrays are sparse tensors over the rows in use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS
from muxrec_kernels.xxhash64 import finish_hashes, hash_rows, mix_ids, reduce_to_rows

COMBINES = ("multiply", "add", "concatenate")
"""How the two rows of a quotient-remainder pair become one vector."""


def quotient_remainder_lookup(
    quotients: Tensor,
    remainders: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    combine: str,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.quotient_remainder_lookup`."""
    high = torch.div(index, remainders.shape[0], rounding_mode="trunc")
    first, second = (
        read_rows(quotients, high),
        read_rows(remainders, index - high * remainders.shape[0]),
    )
    if combine == "concatenate":
        vectors = torch.cat([first, second], dim=1)
    else:
        vectors = first * second if combine == "multiply" else first + second
    return pool_vectors(vectors, offsets, weights, pooling)


def multi_hash_lookup(
    pool: Tensor,
    factors: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.multi_hash_lookup`."""
    rows = read_rows(pool, hash_rows(ids[:, None], seeds[:-1], pool.shape[0]))
    own = read_rows(factors, hash_rows(ids, seeds[-1], factors.shape[0]))
    return pool_vectors((rows * own[:, :, None]).sum(dim=1), offsets, weights, pooling)


def codebook_lookup(
    codes: Tensor,
    codebook: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.codebook_lookup`."""
    first = torch.arange(codes.shape[1], device=codes.device) * part_entries(codes, codebook)
    rows = read_rows(codebook, codes[index].to(torch.int64) + first)
    return pool_vectors(rows.flatten(1), offsets, weights, pooling)


def robe_lookup(
    array: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    width: int,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.robe_lookup`."""
    rows, block = array.shape
    hashes = finish_hashes(mix_ids(ids)[:, None], seeds)
    start = reduce_to_rows(hashes, rows * block)
    row = torch.div(start, block, rounding_mode="trunc")
    both = torch.stack([row, torch.where(row == rows - 1, 0, row + 1)], dim=2)
    places = (start - row * block)[:, :, None] + torch.arange(block, device=ids.device)
    pieces = read_rows(array, both).flatten(2).gather(2, places)
    pieces = pieces * (1 - 2 * (hashes & 1)).to(pieces.dtype)[:, :, None]
    return pool_vectors(pieces.flatten(1)[:, :width], offsets, weights, pooling)


def read_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows ``[..., d]`` in float32 or float64, of a table whose gradient is sparse.

    Args:
        table: float16, bfloat16, float32 or float64 ``[R, d]``.
        rows: int64 of any shape.
    """
    if table.dtype in (torch.float32, torch.float64):
        return F.embedding(rows, table, sparse=True)
    used, places = rows.unique(return_inverse=True)
    return F.embedding(places, F.embedding(used, table, sparse=True).float())


def pool_vectors(vectors: Tensor, offsets: Tensor, weights: Tensor | None, pooling: str) -> Tensor:
    """Pooled bags ``[B, w]`` of single ids' vectors ``[N, w]``; zeros for an empty bag."""
    lengths = offsets.diff()
    if weights is not None:
        vectors = vectors * weights[:, None].to(vectors.dtype)
    bags = torch.repeat_interleave(lengths, output_size=vectors.shape[0])
    sums = vectors.new_zeros(lengths.numel(), vectors.shape[1]).index_add(0, bags, vectors)
    divisors = lengths.clamp(min=1).to(vectors.dtype).pow(POOLING_EXPONENTS[pooling])
    return sums / divisors[:, None]


def part_entries(codes: Tensor, codebook: Tensor) -> int:
    """Entries of one part's codebook: C of codes ``[V, P]`` and a codebook ``[P * C, d / P]``."""
    return codebook.shape[0] // codes.shape[1]
