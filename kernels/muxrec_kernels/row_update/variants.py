"""The row update's kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.machine_code import WARP, Variant
from muxrec_kernels.row_update.launch import KEY_BLOCK, KEY_WARPS, choose_tile
from muxrec_kernels.tiles import next_power_of_2

MANY = 2**22
"""Lookups of a large batch: the longest chunks."""
REGISTERS = 112
"""64 Ki registers per multiprocessor over 112 x 32 threads leave 18 programs with 4 KiB each: three
times what hides the memory's latency at full bandwidth."""
NUMBERS = {
    **dict.fromkeys(("lr", "eps", "decay1", "gain1", "decay2", "gain2", "bias2"), "fp32"),
    **dict.fromkeys(("key0", "key1", "count"), "i32"),
}
POINTERS = {
    "grad": "*fp32",
    "rows": "*i32",
    "order": "*i64",
    "sources": "*i32",
    "scales": "*fp32",
    "first": "*fp32",
    "second": "*fp32",
    "partials": "*fp32",
}


def _table(dtype: str) -> dict[str, str]:
    return {"table": "*fp32" if dtype == "fp32" else "*i16"}


def _constants(kind: str, dtype: str, width: int, lanes: int) -> dict[str, object]:
    return {
        "D": width,
        "D_PADDED": next_power_of_2(width),
        "LANES": lanes,
        "CHUNK": choose_tile(MANY, width).chunk,
        "KIND": kind,
        "FORMAT": dtype,
        "RANDOM": True,
    }


def _update(kind: str, dtype: str, width: int, archs: tuple[int, ...] = (90,)) -> Variant:
    lanes = choose_tile(MANY, width).lanes
    pointers = {**POINTERS, **_table(dtype)}
    # Gradients, rows and Adam's two states come in loads of 16 bytes by every thread.
    numbers = lanes * next_power_of_2(width)
    per_number = 4 + (4 if dtype == "fp32" else 2) + (8 if kind == "adam" else 0)
    return Variant(
        name=f"update, {kind}, {dtype} width {width}",
        kernel="update_kernel",
        arguments={**pointers, **NUMBERS},
        constants={**_constants(kind, dtype, width, lanes), "SCALED": True},
        aligned=tuple(pointers),
        registers=REGISTERS if kind != "adam" else 168,
        wide_loads=numbers * per_number // (16 * WARP),
        archs=archs,
    )


def _merge(kind: str, dtype: str, width: int) -> Variant:
    pointers = {
        **{name: POINTERS[name] for name in ("rows", "first", "second", "partials")},
        **_table(dtype),
    }
    lanes = choose_tile(MANY, width).merge_lanes
    return Variant(
        name=f"merge, {kind}, {dtype} width {width}",
        kernel="merge_kernel",
        arguments={**pointers, **NUMBERS, "chunks": "i32"},
        constants=_constants(kind, dtype, width, lanes),
        aligned=tuple(pointers),
        wide_loads=lanes * next_power_of_2(width) * 4 // (16 * WARP),
    )


def _keys() -> Variant:
    names = ("ids", "bags", "offsets", "feature_slots", "slot_seeds")
    arguments = {
        **dict.fromkeys(names, "*i64"),
        **dict.fromkeys(("keys", "sources"), "*i32"),
        **dict.fromkeys(("weights", "scales"), "*fp32"),
    }
    return Variant(
        name="keys, 4 probes",
        kernel="key_kernel",
        arguments={**arguments, **dict.fromkeys(("count", "rows", "batch_size", "slots"), "i32")},
        constants={"PROBES": 4, "WEIGHTED": True, "EXPONENT": 1, "BLOCK": KEY_BLOCK},
        aligned=tuple(arguments),
        warps=KEY_WARPS,
    )


def _variants() -> Iterator[Variant]:
    yield _keys()
    for width in (16, 128, 256):
        yield _update("adagrad", "fp32", width)
    yield _update("adagrad", "fp32", 64, archs=(90, 80))
    yield _update("adagrad", "fp16", 64)
    yield _update("rmsprop", "bf16", 128)
    yield _update("sgd", "bf16", 64)
    yield _update("adam", "fp32", 64)
    yield _update("adam", "fp16", 128)
    yield _merge("adagrad", "fp32", 64)


VARIANTS = tuple(_variants())
