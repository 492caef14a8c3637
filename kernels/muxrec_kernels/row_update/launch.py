"""Row update on Triton: grids, tiles, workspace, and the sort between the kernels."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import EXPONENT_CODES
from muxrec_kernels.row_update.rule import RowState, Rule, rounding_keys
from muxrec_kernels.tiles import next_power_of_2

FORMATS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
TILE_NUMBERS = 512
"""Numbers of a step: 16 registers of gradients in each of 32 threads and as many of rows, so that
18 programs share a multiprocessor with 4 KiB in flight each. Rows of up to 16 numbers take half:
the assembler spilled where a thread's step had the masks of more of them."""
PROGRAMS = 4096
"""Programs wanted, about 30 for each multiprocessor; more lookups make longer chunks."""
MOST_CHUNK = 512
KEY_BLOCK = 512
KEY_WARPS = 4


class Lookups(NamedTuple):
    """Lookups before the sort.

    Attributes:
        keys: Row of each, int32 ``[M]``; ``2**31 - 1`` where there is none.
        sources: Gradient vector of each, int32 ``[M]``.
        scales: Factor of each, float32 ``[M]``; None for 1.
    """

    keys: Tensor
    sources: Tensor
    scales: Tensor | None


class Tile(NamedTuple):
    """How the sorted lookups are cut: lookups of a step, of a program, and lanes of a merge."""

    lanes: int
    chunk: int
    merge_lanes: int


def choose_tile(count: int, width: int) -> Tile:
    """The tile for ``count`` lookups of rows of ``width`` numbers.

    It follows from bytes in flight and waits for tuning on a device.
    """
    numbers = TILE_NUMBERS if width > 16 else TILE_NUMBERS // 2
    most = max(1, min(32, numbers // next_power_of_2(width)))
    lanes = min(most, next_power_of_2(count))
    chunk = min(MOST_CHUNK, max(lanes, next_power_of_2(count // PROGRAMS)))
    return Tile(lanes, chunk, most)


def hash_lookups(
    kernels: ModuleType,
    ids: Tensor,
    offsets: Tensor,
    feature_slots: Tensor,
    slot_seeds: Tensor,
    *,
    rows: int,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
) -> Lookups:
    """The row, gradient vector and factor of every probe of every id, id after id."""
    count = ids.numel() * feature_slots.shape[1]
    bags = torch.repeat_interleave(offsets.diff(), output_size=ids.numel())
    keys = torch.empty(count, dtype=torch.int32, device=ids.device)
    sources = torch.empty_like(keys)
    exponent = EXPONENT_CODES[pooling]
    is_scaled = weights is not None or exponent != 0
    scales = torch.empty(count, device=ids.device) if is_scaled else None
    kernels.key_kernel[(triton.cdiv(count, KEY_BLOCK),)](
        ids,
        bags,
        offsets,
        feature_slots,
        slot_seeds,
        ids if weights is None else weights,
        keys,
        sources,
        keys if scales is None else scales,
        count,
        rows,
        batch_size,
        slot_seeds.numel(),
        PROBES=feature_slots.shape[1],
        WEIGHTED=weights is not None,
        EXPONENT=exponent,
        BLOCK=KEY_BLOCK,
        num_warps=KEY_WARPS,
    )
    return Lookups(keys, sources, scales)


def launch_update(
    kernels: ModuleType,
    table: Tensor,
    state: RowState,
    lookups: Lookups,
    grad: Tensor,
    *,
    rule: Rule,
    tile: Tile | None = None,
) -> None:
    """Sort the lookups by row, then sum and update; ``grad`` is float32 ``[V, d]``.

    The module ``kernels`` is an argument so that a test can pass one with a seeded defect, and
    ``tile`` so that it can cut runs into chunks without millions of lookups.
    """
    count, width = lookups.keys.numel(), table.shape[1]
    rows, order = torch.sort(lookups.keys, stable=True)
    tile = tile or choose_tile(count, width)
    chunks = -(-count // tile.chunk)
    partials = torch.empty(chunks, 2, width, device=table.device)
    bits = table if table.dtype == torch.float32 else table.view(torch.int16)
    first = bits if state.first is None else state.first
    second = bits if state.second is None else state.second
    numbers = rule_numbers(rule)
    constants: dict[str, Any] = {
        "D": width,
        "D_PADDED": next_power_of_2(width),
        "CHUNK": tile.chunk,
        "KIND": rule.kind,
        "FORMAT": FORMATS[table.dtype],
        "RANDOM": rule.rounding == "stochastic",
        "num_warps": 1,
    }
    kernels.update_kernel[(chunks,)](
        grad,
        rows,
        order,
        lookups.sources,
        lookups.sources if lookups.scales is None else lookups.scales,
        bits,
        first,
        second,
        partials,
        count,
        *numbers,
        LANES=tile.lanes,
        SCALED=lookups.scales is not None,
        **constants,
    )
    if chunks > 1:
        kernels.merge_kernel[(chunks - 1,)](
            rows,
            bits,
            first,
            second,
            partials,
            count,
            chunks,
            *numbers,
            LANES=tile.merge_lanes,
            **constants,
        )


def rule_numbers(rule: Rule) -> tuple[float | int, ...]:
    """The rule's run-time numbers in the kernels' order, in float64 up to here.

    ``1 - decay`` is taken here: in float32 it would lose four digits of a decay of 0.999.
    """
    decay1, decay2 = rule.betas
    lr, bias2 = rule.lr, 1.0
    if rule.kind == "adam":
        lr, bias2 = lr / (1 - decay1**rule.step), 1 - decay2**rule.step
    if rule.kind == "rmsprop":
        decay2, bias2 = rule.decay, 1 - rule.decay**rule.step
    floats = (lr, rule.eps, decay1, 1 - decay1, decay2, 1 - decay2, bias2)
    return *map(float, floats), *rounding_keys(rule)
