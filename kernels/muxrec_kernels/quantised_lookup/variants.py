"""The quantised lookup as it is launched, and what its machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.machine_code import Variant
from muxrec_kernels.quantised_lookup.launch import choose_tile
from muxrec_kernels.quantised_lookup.packing import packed_row_bytes

MANY_BAGS = 2**16
NARROW = ("LDG.E.U8", "LDG.E.S8", "LDG.E.U16", "LDG.E.S16")
CONVERSIONS = ("I2F",)
"""Codes become floats without any conversion; a mean converts the length of a bag."""
SLOW_CONVERSIONS = ("I2F.U8", "I2F.S8", "I2F.U16", "I2F.S16")


def _lookup(
    bits: int,
    width: int,
    length: int,
    *,
    hashed: bool = True,
    mean: bool = False,
    dtype: str = "fp32",
    archs: tuple[int, ...] = (90,),
) -> Variant:
    tile = choose_tile(width, bits, MANY_BAGS, length)
    return Variant(
        name=f"int{bits} width {width}, {'mean' if mean else 'sum'} of {length} "
        f"{'ids' if hashed else 'rows given'}, {dtype}",
        kernel="lookup_kernel",
        arguments={
            "table": "*i32",
            "ids": "*i64",
            "offsets": "*i64",
            "slot_features": "*i64",
            "slot_seeds": "*i64",
            "weights": "*fp32",
            "out": f"*{dtype}",
            "rows": "i32",
            "batch_size": "i32",
            "slots": "i32",
            "unit": "fp32",
            "magic": "i32",
        },
        constants={
            "D": width,
            "BITS": bits,
            "ROW_WORDS": packed_row_bytes(width, bits) // 4,
            "WORDS": tile.words,
            "GROUPS": tile.groups,
            "SPLIT": tile.split,
            "DEPTH": tile.depth,
            "HASHED": hashed,
            "WEIGHTED": length > 20,
            "EXPONENT": int(mean),
        },
        aligned=("table", "ids", "offsets", "weights", "out"),
        warps=tile.warps,
        # Before the loop and in it every thread reads a part of each row that it holds.
        wide_loads=2 * tile.depth,
        forbids=(*NARROW, *(SLOW_CONVERSIONS if mean else CONVERSIONS)),
        archs=archs,
    )


def _variants() -> Iterator[Variant]:
    yield _lookup(8, 124, 20, archs=(90, 80))
    yield _lookup(8, 128, 20, hashed=False)
    yield _lookup(8, 64, 100, mean=True)
    yield _lookup(4, 120, 20, mean=True, archs=(90, 80))
    yield _lookup(4, 120, 20, hashed=False, dtype="fp16")
    yield _lookup(4, 128, 100)
    yield _lookup(4, 64, 1)
    yield _lookup(4, 32, 20, hashed=False)
    yield _lookup(2, 112, 20)
    yield _lookup(2, 112, 4, hashed=False)
    yield _lookup(2, 128, 100, mean=True)


VARIANTS = tuple(_variants())
