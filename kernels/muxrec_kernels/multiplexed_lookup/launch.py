"""Launches of the pooled lookup: tiles, workspace, long bags; nothing waits for the device."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import EXPONENT_CODES
from muxrec_kernels.tiles import Tile, choose_tile, next_power_of_2

SHORTEST_PIECE, LONGEST_PIECE = 256, 512
"""Ids that one program sums of a long bag: 16 to 32 steps of 16 rows, 10 to 20 us by estimate. A
bag of fewer stays whole; 100,000 ids become 195 pieces or more."""
STEPS_PER_PIECE = 64
"""Steps after which a bag counts as long: so many wait for each other in a tile of short bags."""

WAYS = 64
"""Bags that are compared at a time to find the one that a piece belongs to."""

MERGE_PROGRAMS = 2048
"""Programs that look for long bags: as many as a GPU holds at once, so that neither the looking
takes long where there are none nor the merging where all are."""
MERGE_WARPS = 4


class Slots(NamedTuple):
    """What hashes ids to rows; None in its place stands for ids that are rows.

    Attributes:
        features: Feature of each slot, int64 ``[S]``.
        seeds: Hash seed of each slot, int64 ``[S]``.
    """

    features: Tensor
    seeds: Tensor


def launch_pooled(
    kernels: ModuleType,
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    *,
    slots: Slots | None = None,
    batch_size: int,
    weights: Tensor | None = None,
    pooling: str = "sum",
    piece: int | None = None,
) -> Tensor:
    """Run the kernels of the module ``kernels``; float32 ``[B, S * d]``, S being 1 without slots.

    The module is an argument so that a test can pass one with a seeded defect.

    Args:
        kernels: The operation's ``triton_kernel`` module.
        table: Rows, contiguous ``[R, d]``.
        ids: Raw ids, or rows where there are no slots, contiguous int64 ``[N]``.
        offsets: Feature-major bag starts, contiguous int64 ``[F * B + 1]``.
        slots: Slots that hash.
        batch_size: B.
        weights: Factor of each id, contiguous float32 ``[N]``.
        pooling: A key of ``EXPONENT_CODES``.
        piece: Ids of a piece of a long bag; None for what suits the tile.
    """
    count, width = (1 if slots is None else slots.features.numel()), table.shape[1]
    tile = choose_tile(width, ids.numel() / max(1, offsets.numel() - 1), table.element_size())
    piece = piece or choose_piece(tile)
    pieces = ids.numel() // piece
    out = torch.empty(batch_size, count * width, device=table.device)
    arguments = (
        table,
        ids,
        offsets,
        ids if slots is None else slots.features,
        ids if slots is None else slots.seeds,
        out if weights is None else weights,
        out,
        torch.empty(count * pieces, width, device=table.device) if pieces else out,
        table.shape[0],
        batch_size,
        count,
        pieces,
    )
    constants = {
        "D": width,
        "D_PADDED": next_power_of_2(width),
        "WEIGHTED": weights is not None,
        "HASHED": slots is not None,
        "EXPONENT": EXPONENT_CODES[pooling],
        "PIECE": piece if pieces else 0,
    }
    programs = (triton.cdiv(batch_size, tile.bags) + pieces) * count
    kernels.forward_kernel[(programs,)](
        *arguments,
        first_stride(batch_size),
        BAGS=tile.bags,
        LANES=tile.lanes,
        WAYS=WAYS,
        num_warps=tile.warps,
        **constants,
    )
    if pieces:
        shape = merge_shape(width, table.element_size(), batch_size * count)
        programs = triton.cdiv(batch_size, shape["BAGS"]) * count
        kernels.merge_kernel[(programs,)](*arguments, **constants, **shape)
    return out


def choose_piece(tile: Tile) -> int:
    """Ids of a piece of a long bag, beside bags that are summed in ``tile``."""
    return max(SHORTEST_PIECE, min(LONGEST_PIECE, STEPS_PER_PIECE * tile.lanes))


def first_stride(bags: int) -> int:
    """The power of ``WAYS`` that divides ``bags`` into at most ``WAYS`` parts."""
    stride = 1
    while stride * WAYS < bags:
        stride *= WAYS
    return stride


def merge_shape(width: int, number_bytes: int, bags: int) -> dict[str, Any]:
    """Shape of a program that merges pieces: bags looked through, rows in flight, warps."""
    tile = choose_tile(width, 1, number_bytes)
    return {
        "BAGS": min(64, next_power_of_2(max(1, bags // MERGE_PROGRAMS))),
        "LANES": 2 * tile.bags,
        "num_warps": MERGE_WARPS,
    }
