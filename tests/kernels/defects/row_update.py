"""Seeded defects of the row update, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import slot_lookups
from muxrec_kernels.row_update import (
    RowState,
    Rule,
    launch,
    new_state,
    reference,
    slots_of_features,
    triton_kernel,
)
from muxrec_kernels.testing import make_jagged, norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
KEYS, UPDATE, MERGE, TILE, NARROW = (
    "key_kernel",
    "update_kernel",
    "merge_kernel",
    "store_tile",
    "narrow",
)
DEFECTS = {
    "every probe hashes with the first seed": (
        KEYS,
        "tl.load(slot_seeds + slot,",
        "tl.load(slot_seeds + slot * 0,",
    ),
    "a slot that is none is read": (
        KEYS,
        "is_read = alive & (slot >= 0)",
        "is_read = alive",
    ),
    "an item gets its neighbour's gradient": (
        KEYS,
        "item * slots + slot",
        "item * slots + slot + 1",
    ),
    "the pooling is forgotten": (KEYS, "scale = scale / length", "scale = scale"),
    "a duplicate is dropped": (
        UPDATE,
        "ends = alive & (row != following)",
        "ends = alive & (row != -1)",
    ),
    "the last lookup is missed": (
        UPDATE,
        "mask=at < end, other=DEAD",
        "mask=at < end - 1, other=DEAD",
    ),
    "the next chunk's lookups are taken": (
        UPDATE,
        "tl.minimum(begin + CHUNK, count)",
        "tl.minimum(begin + CHUNK + LANES, count)",
    ),
    "an open run is not carried on": (UPDATE, "lane[:, None] == 0", "lane[:, None] < 0"),
    "a long run's middle is lost": (UPDATE, "carry += values", "carry = values"),
    "an ended run is carried on": (UPDATE, "& (ends == 0)", "& (ends == ends)"),
    "a run from before is updated alone": (
        UPDATE,
        "is_whole = ends & begins_here",
        "is_whole = ends",
    ),
    "the last column is missed": (UPDATE, "columns < D\n", "columns < D - 1\n"),
    "the momentum is not kept": (TILE, "tl.store(first + row,", "tl.store(first + row * 0,"),
    "the mean square forgets the alignment": (TILE, "((D + 3) // 4 * 4)", "D"),
    "a long run is cut": (
        MERGE,
        "goes_on = tl.min(is_mine.to(tl.int32), axis=0) == 1",
        "goes_on = tl.min(is_mine.to(tl.int32), axis=0) == 2",
    ),
    "another run is merged in": (MERGE, "(other == row)", "(other != DEAD)"),
    "a run from before is merged twice": (MERGE, "| (row == before) |", "|"),
    "the sign is lost": (NARROW, "((bits >> 31) << 15)", "((bits >> 31) << 14)"),
    "the smallest numbers are rounded as others": (
        NARROW,
        "tl.minimum(shift, 31)",
        "tl.minimum(shift, 13)",
    ),
}

ROWS, WIDTH = 7, 3
BAGS = make_jagged([0, 3, 1, 2, 4, 0], batch_size=2, seed=1, repeat=5)
# The first and the last row are read, by runs within a step, over steps, over many chunks.
RUNS = ((0, 1), (1, 3), (3, 19), (4, 1), (5, 6), (6, 2))


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distances of keys, of an update, and of rounded bits from the reference."""
    updated = _update(kernels)
    found = {KEYS: _keys(kernels), NARROW: _narrow(kernels)}
    return found | dict.fromkeys((UPDATE, MERGE, TILE), updated)


def _keys(kernels: ModuleType) -> float:
    """Hash, gradient vector and factor of every lookup, as one sorted list of numbers."""
    features, seeds = torch.tensor([1, 2, 1]), torch.tensor([11, -7, 5])
    slots = slots_of_features(features, 3)
    with poisoned_outputs():
        made = launch.hash_lookups(
            kernels, BAGS.ids, BAGS.offsets, slots, seeds,
            rows=1000, batch_size=2, weights=None, pooling="mean",
        )  # fmt: skip
    expected = slot_lookups(BAGS.ids, BAGS.offsets, features, seeds, rows=1000, batch_size=2)
    bags = torch.repeat_interleave(expected.offsets.diff())
    lengths = expected.offsets.diff()[bags]
    assert made.scales is not None
    is_read = made.keys < 2**31 - 1
    ours = [made.keys[is_read], made.sources[is_read], 1 / made.scales[is_read]]
    theirs = [expected.rows, bags % 2 * 3 + bags // 2, lengths]
    if ours[0].numel() != theirs[0].numel():
        return float("inf")
    return norm_ratio(_in_order(ours), _in_order(theirs))


def _in_order(columns: list[Tensor]) -> Tensor:
    rows = torch.stack([column.double().round(decimals=6) for column in columns], dim=1)
    return torch.tensor(sorted(rows.tolist()))


def _update(kernels: ModuleType) -> float:
    """The whole table, its guard rows and its momentum after an update in chunks of eight."""
    rows = torch.cat([torch.full((length,), row) for row, length in RUNS])
    rows = rows[torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(2))]
    generator = torch.Generator().manual_seed(0)
    guarded = torch.full((ROWS + 2, WIDTH), 10.0)
    guarded[1:-1] = torch.randn(ROWS, WIDTH, generator=generator)
    vectors = torch.full((9, WIDTH), 1e4)
    vectors[1:-1] = torch.randn(7, WIDTH, generator=generator)
    grad, sources = vectors[1:-1], torch.arange(rows.numel()) % 7
    rule = Rule("adagrad", 0.1)
    truth, exact = guarded.double(), RowState(torch.zeros(ROWS, dtype=torch.float64))
    reference.update_rows(truth[1:-1], exact, rows, sources, grad.double(), scales=None, rule=rule)
    state = new_state("adagrad", guarded[1:-1])
    lookups = launch.Lookups(rows.int(), sources.int(), None)
    with poisoned_outputs():
        launch.launch_update(
            kernels, guarded[1:-1], state, lookups, grad, rule=rule, tile=launch.Tile(2, 8, 2)
        )
    assert state.first is not None
    assert exact.first is not None
    return max(norm_ratio(guarded, truth), norm_ratio(state.first, exact.first))


def _narrow(kernels: ModuleType) -> float:
    """Share of numbers of a fp16 table that are not rounded to the reference's bits."""
    every, scale = torch.arange(8), 2.0 ** torch.arange(-26, 6, 4)
    values = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) * scale[:, None]
    found, expected = torch.zeros(2, 8, 4, dtype=torch.float16)
    rule = Rule("sgd", 1.0, seed=3)
    reference.update_rows(expected, RowState(), every, every, values, scales=None, rule=rule)
    lookups = launch.Lookups(every.int(), every.int(), None)
    launch.launch_update(
        kernels, found, RowState(), lookups, values, rule=rule, tile=launch.Tile(8, 8, 1)
    )
    return float((found.view(torch.int16) != expected.view(torch.int16)).double().mean())
