"""Launches of the forward kernels: tiles, grids, outputs.

The kernels' module is an argument so that a test can pass one with a seeded defect.
"""

from __future__ import annotations

from types import ModuleType

import torch
import triton
from torch import Tensor

from muxrec_kernels.compositional_lookup.reference import COMBINES, part_entries
from muxrec_kernels.multiplexed_lookup.reference import EXPONENT_CODES
from muxrec_kernels.tiles import Tile, choose_tile, next_power_of_2


def quotient_remainder_forward(
    kernels: ModuleType,
    quotients: Tensor,
    remainders: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    combine: str,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """Pooled compositions, float32 ``[B, d]``, or ``[B, 2 * d]`` where concatenated."""
    buckets, width = remainders.shape
    wide = 2 * width if combine == "concatenate" else width
    out, tile = _bags_of(wide, index, offsets, row=2 * width)
    kernels.quotient_remainder_kernel[(triton.cdiv(out.shape[0], tile.bags),)](
        quotients,
        remainders,
        index,
        offsets,
        index if weights is None else weights,
        out,
        buckets,
        (2**63 - 1) // buckets,
        out.shape[0],
        D=width,
        D_PADDED=next_power_of_2(width),
        COMBINE=COMBINES.index(combine),
        **_constants(tile, weights, pooling),
    )
    return out


def multi_hash_forward(
    kernels: ModuleType,
    pool: Tensor,
    factors: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """Pooled weighted sums, float32 ``[B, d]``."""
    width = pool.shape[1]
    out, tile = _bags_of(width, ids, offsets, row=2 * width)
    kernels.multi_hash_kernel[(triton.cdiv(out.shape[0], tile.bags),)](
        pool,
        factors,
        ids,
        offsets,
        seeds,
        ids if weights is None else weights,
        out,
        pool.shape[0],
        factors.shape[0],
        out.shape[0],
        K=factors.shape[1],
        D=width,
        D_PADDED=next_power_of_2(width),
        **_constants(tile, weights, pooling),
    )
    return out


def codebook_forward(
    kernels: ModuleType,
    codes: Tensor,
    codebook: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """Pooled decoded vectors, float32 ``[B, P * d]``."""
    parts, width = codes.shape[1], codebook.shape[1]
    padded = next_power_of_2(parts), next_power_of_2(width)
    out, tile = _bags_of(parts * width, index, offsets, row=padded[0] * padded[1])
    kernels.codebook_kernel[(triton.cdiv(out.shape[0], tile.bags),)](
        codes,
        codebook,
        index,
        offsets,
        index if weights is None else weights,
        out,
        part_entries(codes, codebook),
        out.shape[0],
        PARTS=parts,
        PARTS_PADDED=padded[0],
        D=width,
        D_PADDED=padded[1],
        **_constants(tile, weights, pooling),
    )
    return out


def robe_forward(
    kernels: ModuleType,
    array: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    width: int,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """Pooled vectors of pieces, float32 ``[B, width]``."""
    pieces, block = seeds.numel(), array.shape[1]
    padded = next_power_of_2(pieces), next_power_of_2(block)
    out, tile = _bags_of(width, ids, offsets, row=padded[0] * padded[1])
    kernels.robe_kernel[(triton.cdiv(out.shape[0], tile.bags),)](
        array,
        ids,
        offsets,
        seeds,
        ids if weights is None else weights,
        out,
        array.numel(),
        out.shape[0],
        PIECES=pieces,
        PIECES_PADDED=padded[0],
        BLOCK=block,
        BLOCK_PADDED=padded[1],
        WIDTH=width,
        **_constants(tile, weights, pooling),
    )
    return out


def _bags_of(width: int, ids: Tensor, offsets: Tensor, *, row: int) -> tuple[Tensor, Tile]:
    """An output of ``width`` numbers per bag, and the tile for ``row`` numbers read per id."""
    bags = offsets.numel() - 1
    out = torch.empty(bags, width, dtype=torch.float32, device=ids.device)
    return out, choose_tile(row, ids.numel() / bags)


def _constants(tile: Tile, weights: Tensor | None, pooling: str) -> dict[str, int | bool]:
    return {
        "BAGS": tile.bags,
        "LANES": tile.lanes,
        "WEIGHTED": weights is not None,
        "EXPONENT": EXPONENT_CODES[pooling],
        "num_warps": tile.warps,
    }
