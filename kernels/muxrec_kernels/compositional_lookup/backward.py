"""Gradients of every form: which rows each id read, and what it multiplied them by.

Each function takes the kernels' module, the outer gradient, float32 and contiguous, and the
forward's arguments, and gives a pair of distinct rows and their gradients for each array.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from muxrec_kernels.compositional_lookup.gradient import (
    Terms,
    bags_of_ids,
    id_scales,
    sum_by_row,
)
from muxrec_kernels.compositional_lookup.reference import part_entries
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS
from muxrec_kernels.tiles import next_power_of_2, segment_lanes

Gradient = tuple[Tensor, Tensor]
"""Distinct rows int64 ``[U]``, rising, and their gradients float32 ``[U, d]``."""


def quotient_remainder_backward(
    kernels: ModuleType,
    grad_out: Tensor,
    quotients: Tensor,
    remainders: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    combine: str,
    weights: Tensor | None,
    pooling: str,
    run: int | None = None,
) -> tuple[Gradient, Gradient]:
    """Gradients of the quotients and of the remainders."""
    bags, scales = _ids_of(offsets, index, weights, pooling)
    high = torch.div(index, remainders.shape[0], rounding_mode="trunc")
    low = index - high * remainders.shape[0]
    if combine == "multiply":
        of_high, of_low = Terms(high, bags, scales, low), Terms(low, bags, scales, high)
        return (
            sum_by_row(kernels, grad_out, of_high, others=remainders, run=run),
            sum_by_row(kernels, grad_out, of_low, others=quotients, run=run),
        )
    sources = bags, bags
    if combine == "concatenate":
        grad_out, sources = grad_out.view(-1, quotients.shape[1]), (2 * bags, 2 * bags + 1)
    first = sum_by_row(kernels, grad_out, Terms(high, sources[0], scales), run=run)
    return first, sum_by_row(kernels, grad_out, Terms(low, sources[1], scales), run=run)


def multi_hash_backward(
    kernels: ModuleType,
    grad_out: Tensor,
    pool: Tensor,
    factors: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
    run: int | None = None,
) -> tuple[Gradient, Gradient]:
    """Gradients of the pool and of the factors."""
    bags, scales = _ids_of(offsets, ids, weights, pooling)
    count, hashes, width = ids.numel(), factors.shape[1], pool.shape[1]
    rows = torch.empty(count, hashes, dtype=torch.int32, device=ids.device)
    owns = torch.empty(count, dtype=torch.int32, device=ids.device)
    coefficients = torch.empty(count, hashes, dtype=torch.float32, device=ids.device)
    slopes = torch.empty(count, hashes, dtype=torch.float32, device=ids.device)
    lanes = segment_lanes(width)
    if count:
        kernels.multi_hash_terms_kernel[(triton.cdiv(count, lanes),)](
            grad_out,
            pool,
            factors,
            ids,
            bags,
            slopes if scales is None else scales,
            seeds,
            rows,
            owns,
            coefficients,
            slopes,
            count,
            pool.shape[0],
            factors.shape[0],
            K=hashes,
            D=width,
            D_PADDED=next_power_of_2(width),
            LANES=lanes,
            SCALED=scales is not None,
            num_warps=1,
        )
    sources = bags.repeat_interleave(hashes, output_size=count * hashes)
    of_pool = Terms(rows.flatten(), sources, coefficients.flatten())
    of_factors = Terms(owns, torch.arange(count, device=ids.device))
    return (
        sum_by_row(kernels, grad_out, of_pool, run=run),
        sum_by_row(kernels, slopes, of_factors, run=run),
    )


def codebook_backward(
    kernels: ModuleType,
    grad_out: Tensor,
    codes: Tensor,
    codebook: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
    run: int | None = None,
) -> Gradient:
    """Gradient of the codebook."""
    bags, scales = _ids_of(offsets, index, weights, pooling)
    part = torch.arange(codes.shape[1], dtype=torch.int32, device=codes.device)
    rows = (codes[index].to(torch.int32) + part * part_entries(codes, codebook)).flatten()
    sources = (bags[:, None] * codes.shape[1] + part).flatten()
    terms = Terms(rows, sources, _repeated(scales, codes.shape[1]))
    return sum_by_row(kernels, grad_out.view(-1, codebook.shape[1]), terms, run=run)


def robe_backward(
    kernels: ModuleType,
    grad_out: Tensor,
    array: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    width: int,
    weights: Tensor | None,
    pooling: str,
    run: int | None = None,
) -> Gradient:
    """Gradient of the array, by rows of a block: every piece was cut from two of them."""
    bags, scales = _ids_of(offsets, ids, weights, pooling)
    pieces, (rows_held, block) = seeds.numel(), array.shape
    if width < pieces * block:
        grad_out = F.pad(grad_out, (0, pieces * block - width))
    count = ids.numel() * pieces
    rows = torch.empty(count, 2, dtype=torch.int32, device=ids.device)
    shifts = torch.empty(count, 2, dtype=torch.int32, device=ids.device)
    signs = torch.empty(count, dtype=torch.float32, device=ids.device)
    if count:
        lanes = 128
        kernels.robe_terms_kernel[(triton.cdiv(count, lanes),)](
            ids,
            seeds,
            rows,
            shifts,
            signs,
            count,
            rows_held,
            PIECES=pieces,
            BLOCK=block,
            LANES=lanes,
            num_warps=1,
        )
    piece = torch.arange(pieces, device=ids.device)
    sources = (bags[:, None] * pieces + piece).flatten()
    if scales is not None:
        signs = signs.view(-1, pieces).mul(scales[:, None]).flatten()
    both = (each.repeat_interleave(2, output_size=2 * count) for each in (sources, signs))
    terms = Terms(rows.flatten(), *both, shifts=shifts.flatten())
    return sum_by_row(kernels, grad_out.view(-1, block), terms, run=run)


def _ids_of(
    offsets: Tensor, ids: Tensor, weights: Tensor | None, pooling: str
) -> tuple[Tensor, Tensor | None]:
    """The bag of each id, and what its vector is multiplied by there."""
    bags = bags_of_ids(offsets, ids.numel())
    return bags, id_scales(offsets, bags, weights, POOLING_EXPONENTS[pooling])


def _repeated(scales: Tensor | None, times: int) -> Tensor | None:
    if scales is None:
        return None
    return scales.repeat_interleave(times, output_size=scales.numel() * times)
