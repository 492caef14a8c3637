"""The lookup's kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muxrec_kernels.machine_code import WARP, Variant
from muxrec_kernels.multiplexed_lookup.launch import LONGEST_PIECE, WAYS, choose_piece, merge_shape
from muxrec_kernels.tiles import choose_tile, next_power_of_2

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
POINTERS = {
    "ids": "*i64",
    "offsets": "*i64",
    "slot_features": "*i64",
    "slot_seeds": "*i64",
    "weights": "*fp32",
    "out": "*fp32",
    "partials": "*fp32",
}
NUMBERS = dict.fromkeys(("rows", "batch_size", "slots", "pieces"), "i32")
IN_ORDER = ("LDG.E.128", "LDG.E.U16", "LDG.E.S16")
"""Rows that are read into registers, wide or narrow, wait for each other."""
STEPS_AHEAD = 3
"""Every read of rows is there thrice: for the first step, for the second, and in the loop."""


def _variant(kernel: str, dtype: str, constants: Mapping[str, Any], **changes: Any) -> Variant:
    searched = {"reach": "i32"} if kernel == "forward_kernel" else {}
    return Variant(
        kernel=kernel,
        arguments={"table": f"*{dtype}", **POINTERS, **NUMBERS, **searched},
        constants={"HASHED": True, "WEIGHTED": False, "EXPONENT": 1, **constants},
        aligned=("table", *POINTERS),
        needs=("LDGSTS.E.BYPASS",),
        forbids=IN_ORDER,
        **changes,
    )


def _forward(
    dtype: str,
    width: int,
    length: int,
    *,
    archs: tuple[int, ...] = (90,),
    name: str = "forward",
    **constants: object,
) -> Variant:
    """The pooling kernel for bags of ``length`` ids."""
    tile, padded = choose_tile(width, length, BYTES[dtype]), next_power_of_2(width)
    constants = {
        "BAGS": tile.bags,
        "LANES": tile.lanes,
        "PIECE": choose_piece(tile),
        "WAYS": WAYS,
        **constants,
    }
    # What a thread reads of the program's rows per step, for bags and for pieces.
    step = tile.bags * tile.lanes * padded * BYTES[dtype] // (16 * WARP * tile.warps)
    places = 1 if constants.get("PIECE") == 0 else 2
    return _variant(
        "forward_kernel",
        dtype,
        {"D": width, "D_PADDED": padded, **constants},
        name=f"{name}, {dtype} width {width}, {length} ids",
        warps=tile.warps,
        wide_loads=places * STEPS_AHEAD * max(1, step),
        archs=archs,
    )


def _merge(dtype: str, width: int, archs: tuple[int, ...] = (90,)) -> Variant:
    shape = merge_shape(width, BYTES[dtype], bags=2**18)
    warps, padded = shape.pop("num_warps"), next_power_of_2(width)
    row_bytes = padded * (4 + BYTES[dtype])
    return _variant(
        "merge_kernel",
        dtype,
        {"D": width, "D_PADDED": padded, "PIECE": LONGEST_PIECE, **shape},
        name=f"merge, {dtype} width {width}",
        warps=warps,
        wide_loads=STEPS_AHEAD * shape["LANES"] * row_bytes // (16 * WARP * warps),
        archs=archs,
    )


def _variants() -> Iterator[Variant]:
    yield _forward("fp32", 64, 1)
    yield _forward("fp32", 64, 20, archs=(90, 80))
    yield _forward("fp32", 64, 20, name="no long bag", PIECE=0)
    yield _forward("fp32", 64, 20, name="rows given", HASHED=False, WEIGHTED=True)
    yield _forward("fp32", 96, 20)
    yield _forward("fp32", 512, 1)
    yield _forward("fp16", 16, 20)
    yield _forward("fp16", 64, 1)
    yield _forward("fp16", 64, 100)
    yield _forward("bf16", 128, 20, WEIGHTED=True, archs=(90, 80))
    yield _merge("fp32", 64)
    yield _merge("fp16", 128)


VARIANTS = tuple(_variants())
