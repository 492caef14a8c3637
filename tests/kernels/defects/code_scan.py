"""Seeded defects of the scans, and how far each takes them from their reference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from muxrec_kernels.code_scan import launch, reference, triton_kernel
from muxrec_kernels.code_scan.launch import Plan

MODULE = triton_kernel
TOLERANCE = 1e-6
SIGNS, DOTS = "signs_kernel", "dots_kernel"
KEYS, MERGE, SORT = "keys_of", "merge_best", "sort_runs"
DEFECTS = {
    "the last item is missed": (SIGNS, "alive = item < items", "alive = item < items - 1"),
    "items beyond the last are results": (SIGNS, "alive = item < items", "alive = item <= items"),
    "the best is the floor": (SIGNS, "tl.min(best, axis=1)", "tl.max(best, axis=1)"),
    "ties go to the higher item": (KEYS, "(0xFFFFFFFF - item)", "item"),
    "the left-out item is a result": (KEYS, "(item[None, :] != left_out[:, None])", "True"),
    "the rest begins at the sample's tile": ("tile_at", "(EVERY - 1) + 1", "(EVERY - 1)"),
    "what was best before is forgotten": (MERGE, "[2] * LAST))", "[2] * LAST) & 0)"),
    "the worse half is kept": (MERGE, "tl.max(cube,", "tl.min(cube,"),
    "all runs rise": (SORT, "!= (falls ^", "!= (0 ^"),
    "the last byte is missed": (DOTS, "is_byte = byte < BYTES", "is_byte = byte < BYTES - 1"),
    "planes change places": (DOTS, "half * PLANES + plane", "half * PLANES + PLANES - 1 - plane"),
    "the query's second term is lost": (DOTS, "1 if WHOLE else 2", "1"),
    "scores below zero are out of order": ("ordered", "& 0x7FFFFFFF", "& 0"),
}  # fmt: skip
SHARED = {name for name, _, _ in DEFECTS.values()} - {SIGNS, DOTS}

ITEMS, WIDTH, RESULTS = 61, 40, 7
# Tiles of 8 items, two programs, every third tile first; products in tiles of 32, all at once.
SAMPLED, AT_ONCE = Plan(2, 8, 8, 4, 2, 3), Plan(16, 32, 8, 4, 1, 1)


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of every function's scans from the reference in float64."""
    found = {SIGNS: _signs(kernels), DOTS: _dots(kernels)}
    return found | dict.fromkeys(SHARED, max(found.values()))


def _signs(kernels: ModuleType) -> float:
    generator = torch.Generator().manual_seed(0)
    distinct = torch.randint(0, 256, (10, 12), dtype=torch.uint8, generator=generator)
    # Ties in plenty; the last item and the row after it, which is none, have a code of their own.
    frame = distinct[torch.randint(0, 9, (ITEMS + 1,), generator=generator)]
    frame[-2:] = distinct[9]
    codes, queries = frame[:-1], frame[[0, 40, ITEMS]]
    leave_out = torch.tensor([0, 40, 3])
    found = launch.scan_signs(kernels, queries, codes, RESULTS, exclude=leave_out, plan=SAMPLED)
    return _apart(found, reference.scan_signs(queries, codes, RESULTS, exclude=leave_out))


def _dots(kernels: ModuleType) -> float:
    generator = torch.Generator().manual_seed(1)
    # Rows of ones around the codes, which a read outside would bring in.
    frame = torch.randint(0, 256, (ITEMS + 16, WIDTH // 2), dtype=torch.uint8, generator=generator)
    frame[:8] = frame[-8:] = 255
    codes, queries = frame[8:-8], torch.randn(3, WIDTH, generator=generator).abs()
    # All scores are below zero.
    steps, offsets = torch.rand(2, ITEMS, generator=generator)
    offsets -= 8.0
    leave_out = torch.tensor([0, 40, ITEMS - 1])
    exact = reference.scan_packed(
        queries.double(), codes, RESULTS, bits=4, steps=steps, offsets=offsets, exclude=leave_out
    )
    keys = launch.scan_dots(
        kernels,
        launch.ask_numbers(queries, bits=4, size=WIDTH // 2, with_sums=True),
        codes,
        RESULTS,
        bits=4,
        steps_of=steps,
        offsets_of=offsets,
        exclude=leave_out,
        plan=AT_ONCE,
    )
    order, items = launch.read_keys(keys)
    return _apart((launch.read_floats(order), items), exact)


def _apart(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """Share of places with another item, and the scores' distance over their norm."""
    scores, expected = found[0].double(), exact[0].double()
    ratio = (scores - expected).norm() / expected.norm()
    if not ratio.isfinite():
        return float("inf")
    return (found[1] != exact[1]).double().mean().item() + ratio.item()
