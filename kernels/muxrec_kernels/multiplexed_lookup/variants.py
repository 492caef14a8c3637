"""The lookup's kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.machine_code import WARP, Variant
from muxrec_kernels.tiles import choose_tile, next_power_of_2, segment_lanes

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
NARROW = ("LDG.E.U16", "LDG.E.S16")
"""A narrow read of a row would be of the row's own type: two bytes for 16-bit tables."""


def _forward(dtype: str, width: int, length: int, archs: tuple[int, ...] = (90,)) -> Variant:
    tile = choose_tile(width, length)
    padded = next_power_of_2(width)
    # One pass of a program over its rows, in loads of 16 bytes by every thread.
    wide = tile.bags * tile.lanes * padded * BYTES[dtype] // (16 * WARP * tile.warps)
    return Variant(
        name=f"forward, {dtype} width {width}, {length} ids",
        kernel="forward_kernel",
        arguments={
            "table": f"*{dtype}",
            "ids": "*i64",
            "offsets": "*i64",
            "slot_features": "*i64",
            "slot_seeds": "*i64",
            "weights": "*fp32",
            "out": "*fp32",
            "rows": "i32",
            "batch_size": "i32",
            "slots": "i32",
        },
        constants={
            "D": width,
            "D_PADDED": padded,
            "BAGS": tile.bags,
            "LANES": tile.lanes,
            "WEIGHTED": length > 1,
            "EXPONENT": 1,
        },
        aligned=("table", "ids", "offsets", "weights", "out"),
        warps=tile.warps,
        wide_loads=max(1, wide),
        forbids=NARROW,
        archs=archs,
    )


def _segment(width: int, archs: tuple[int, ...] = (90,)) -> Variant:
    pointers = {"grad_out": "*fp32", "sources": "*i64", "scales": "*fp32", "starts": "*i64"}
    lanes, padded = segment_lanes(width), next_power_of_2(width)
    return Variant(
        name=f"segment sums, width {width}",
        kernel="segment_kernel",
        arguments={**pointers, "out": "*fp32"},
        constants={"D": width, "D_PADDED": padded, "LANES": lanes, "SCALED": True},
        aligned=(*pointers, "out"),
        wide_loads=max(1, lanes * padded * 4 // (16 * WARP)),
        archs=archs,
    )


def _variants() -> Iterator[Variant]:
    for width in (4, 64, 96, 512):
        yield _forward("fp32", width, 1)
    yield _forward("fp32", 64, 20, archs=(90, 80))
    yield _forward("fp32", 128, 20)
    for width in (8, 64, 512):
        yield _forward("fp16", width, 20)
    yield _forward("bf16", 128, 20, archs=(90, 80))
    yield _segment(16)
    yield _segment(128, archs=(90, 80))


VARIANTS = tuple(_variants())
