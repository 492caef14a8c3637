"""The scans' kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.code_scan.launch import SAMPLE_EVERY, Plan, block_bytes, choose_plan
from muxrec_kernels.machine_code import Variant

ITEMS = 10_000_000
MOST_REGISTERS = 232
"""Keys, their sorted copy and a tile of float16 numbers: two programs of four warps, or one of
eight, fit a multiprocessor. Not one of them may spill."""


def _signs(bits: int, queries: int, k: int, archs: tuple[int, ...] = (90,)) -> Variant:
    words = bits // 32
    plan = choose_plan(queries, ITEMS, k, words=words)
    pointers = {"queries": "*i32", "codes": "*i32"}
    # Every thread reads its words of a tile 16 bytes at a time.
    wide = plan.items * words * 4 // (16 * 32 * plan.warps)
    return _variant(
        f"{bits} bits counted, {queries} queries, k {k}",
        "signs_kernel",
        pointers,
        {"W": words, "W_PADDED": words},
        plan,
        wide_loads=wide,
        needs=("POPC",),
        archs=archs,
    )


def _dots(
    size: int, bits: int, queries: int, k: int, *, whole: bool, scaled: bool, needs: str
) -> Variant:
    plan = choose_plan(queries, ITEMS, k)
    pointers = {
        "queries": "*i8" if whole else "*fp16",
        "codes": "*u8",
        **dict.fromkeys(("units", "sums", "steps_of", "offsets_of"), "*fp32"),
    }
    constants = {
        "BYTES": size,
        "BLOCK": block_bytes(size),
        "BITS": bits,
        "WHOLE": whole,
        "SCALED": scaled,
        "OFFSETS": scaled and bits < 8,
        "PER_ITEM": True,
    }
    # Rows of 32 bytes are read straight into the order of the matrix units, in narrower pieces.
    return _variant(
        f"{size} bytes of {bits} bits, {'int8' if whole else 'float'} queries {queries}, k {k}",
        "dots_kernel",
        pointers,
        constants,
        plan,
        wide_loads=1 if size >= 64 else 0,
        needs=(needs,),
        archs=(90,),
    )


def _variant(
    name: str,
    kernel: str,
    pointers: dict[str, str],
    constants: dict[str, object],
    plan: Plan,
    *,
    wide_loads: int,
    needs: tuple[str, ...],
    archs: tuple[int, ...],
) -> Variant:
    pointers = {**pointers, **dict.fromkeys(("exclude", "floors", "out"), "*i64")}
    tile = {"QT": plan.queries, "NT": plan.items, "K": plan.kept}
    return Variant(
        name=name,
        kernel=kernel,
        arguments={**pointers, **dict.fromkeys(("query_count", "items", "steps"), "i32")},
        constants={**constants, **tile, "EXCLUDES": True, "REST": True, "EVERY": SAMPLE_EVERY},
        aligned=tuple(pointers),
        warps=plan.warps,
        registers=MOST_REGISTERS,
        wide_loads=wide_loads,
        needs=needs,
        forbids=("I2F.U8", "I2F.S8"),
        archs=archs,
    )


def _variants() -> Iterator[Variant]:
    yield _signs(256, 1, 100, archs=(90, 80))
    yield _signs(512, 31, 256)
    yield _dots(32, 1, 256, 100, whole=True, scaled=False, needs="IGMMA")
    yield _dots(128, 8, 256, 10, whole=True, scaled=True, needs="IGMMA")
    yield _dots(128, 8, 1, 100, whole=False, scaled=True, needs="HGMMA")
    yield _dots(64, 4, 256, 100, whole=False, scaled=True, needs="HGMMA")
    yield _dots(32, 2, 16, 256, whole=False, scaled=True, needs="HGMMA")


VARIANTS = tuple(_variants())
