"""Quantised lookup on Triton: tiles and the launch."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple, TypedDict, Unpack

import torch
import triton
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import EXPONENT_CODES
from muxrec_kernels.quantised_lookup import triton_kernel
from muxrec_kernels.quantised_lookup.packing import packed_row_bytes
from muxrec_kernels.tiles import next_power_of_2

LOAD_WORDS = 128
"""Words that a warp reads with one load: 16 bytes by each of 32 threads."""
DEPTHS = {8: 4, 4: 4, 2: 2}
"""Rows in flight per group: the sums of 4 words take 16, 32 and 64 registers of a thread."""
ENOUGH_PROGRAMS = 2048
"""Programs of one warp that keep a GPU of 132 multiprocessors busy."""


class Tile(NamedTuple):
    """Shape of a program.

    Attributes:
        words: Words of a row that hold codes, up to a power of two.
        groups: Rows side by side.
        split: Groups that share a bag.
        depth: Rows behind each other.
        warps: Warps per program.
    """

    words: int
    groups: int
    split: int
    depth: int
    warps: int


class Options(TypedDict):
    """What a lookup is told apart from its tensors of ids; see :func:`launch_forward`."""

    width: int
    bits: int
    batch_size: int
    weights: Tensor | None
    pooling: str
    unit: float
    dtype: torch.dtype


def choose_tile(width: int, bits: int, bags: int, mean_length: float) -> Tile:
    """The tile for ``bags`` bags of ``mean_length`` rows on average.

    Groups that share a bag have to sum across threads once per bag, which short bags do not pay
    back; groups that do not wait for the longest of their bags. So two share a bag of 32 rows, four
    one of 64; more only where there are too few bags for the machine. Chosen by instructions per
    row and registers; the numbers wait for tuning on a device.
    """
    words = max(4, next_power_of_2(-(-width * bits // 32)))
    groups = max(1, LOAD_WORDS // words)
    length = next_power_of_2(max(1, round(mean_length)))
    # 4 groups of 8 rows are one id for every thread of a warp to hash; with fewer groups, rows that
    # deep do not fit in registers.
    depth = min(length, 8 if (bits, groups) == (8, 4) else DEPTHS[bits])
    split = min(groups, 4 if mean_length >= 64 else 2 if mean_length >= 32 else 1)
    while split < groups and split * depth < length and bags * split < groups * ENOUGH_PROGRAMS:
        split *= 2
    return Tile(words, groups, split, depth, warps=max(1, min(8, words // LOAD_WORDS)))


def launch_forward(
    kernels: ModuleType,
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor | None,
    slot_seeds: Tensor | None,
    *,
    width: int,
    bits: int,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
    unit: float,
    dtype: torch.dtype,
) -> Tensor:
    """Run the kernel of the module ``kernels``; ``dtype`` ``[B, S * d]``.

    The module is an argument so that a test can pass one with a seeded defect.

    Args:
        kernels: Module of the kernel.
        table: Packed rows, uint8 ``[R, row_bytes]``.
        ids: Ids to hash, or rows where ``slot_seeds`` is None, int64 ``[N]``.
        offsets: Bag starts, int64 ``[F * B + 1]``.
        slot_features: Feature of each slot, int64 ``[S]``; None: rows are given, S is F.
        slot_seeds: Seed of each slot, int64 ``[S]``; None likewise.
        width: d.
        bits: 8, 4 or 2.
        batch_size: B.
        weights: Factor of each id, float32 ``[N]``; None for 1.
        pooling: ``sum``, ``mean`` or ``sqrt``.
        unit: Factor of all numbers.
        dtype: float32 or float16.
    """
    features = (offsets.numel() - 1) // batch_size
    slots = features if slot_seeds is None else slot_seeds.numel()
    out = torch.empty(batch_size, slots * width, device=table.device, dtype=dtype)
    if out.numel() == 0:
        return out
    tile = choose_tile(width, bits, batch_size * slots, ids.numel() / max(1, features * batch_size))
    kernels.lookup_kernel[(triton.cdiv(batch_size * tile.split, tile.groups), slots)](
        table.view(torch.int32),
        ids,
        offsets,
        ids if slot_features is None else slot_features,
        ids if slot_seeds is None else slot_seeds,
        ids if weights is None else weights,
        out,
        table.shape[0],
        batch_size,
        slots,
        float(unit),
        kernels.MAGIC,
        D=width,
        BITS=bits,
        ROW_WORDS=packed_row_bytes(width, bits) // 4,
        WORDS=tile.words,
        GROUPS=tile.groups,
        SPLIT=tile.split,
        DEPTH=tile.depth,
        HASHED=slot_seeds is not None,
        WEIGHTED=weights is not None,
        EXPONENT=EXPONENT_CODES[pooling],
        num_warps=tile.warps,
    )
    return out


def quantised_lookup(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    **options: Unpack[Options],
) -> Tensor:
    """See :func:`muxrec_kernels.quantised_lookup.quantised_lookup`."""
    return launch_forward(triton_kernel, table, ids, offsets, slot_features, slot_seeds, **options)


def pool_quantised_rows(
    table: Tensor, rows: Tensor, offsets: Tensor, **options: Unpack[Options]
) -> Tensor:
    """See :func:`muxrec_kernels.quantised_lookup.pool_quantised_rows`."""
    return launch_forward(triton_kernel, table, rows, offsets, None, None, **options)
