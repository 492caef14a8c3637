"""The lookups' kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from muxrec_kernels.machine_code import WARP, Variant
from muxrec_kernels.tiles import Tile, choose_tile, next_power_of_2, segment_lanes

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
BAGS = {"offsets": "*i64", "weights": "*fp32", "out": "*fp32", "bags": "i32"}
LENGTH = 20


def _loads(tile: Tile, row: int, dtype: str) -> int:
    """Loads of 16 bytes by every thread in one pass of a program over its rows of one array."""
    return max(1, tile.bags * tile.lanes * row * BYTES[dtype] // (16 * WARP * tile.warps))


def _forward(
    name: str,
    kernel: str,
    tile: Tile,
    arguments: Mapping[str, str],
    constants: Mapping[str, int],
    *,
    wide_loads: int,
    archs: tuple[int, ...] = (90,),
) -> Variant:
    given = {**arguments, **BAGS}
    return Variant(
        name=name,
        kernel=kernel,
        arguments=given,
        constants={
            **constants,
            "BAGS": tile.bags,
            "LANES": tile.lanes,
            "WEIGHTED": True,
            "EXPONENT": 1,
        },
        aligned=tuple(argument for argument, kind in given.items() if kind.startswith("*")),
        warps=tile.warps,
        wide_loads=wide_loads,
        archs=archs,
    )


def _pairs(
    dtype: str, width: int, combine: int, length: int = LENGTH, archs: tuple[int, ...] = (90,)
) -> Variant:
    tile, padded = choose_tile(2 * width, length), next_power_of_2(width)
    rows = {"quotients": f"*{dtype}", "remainders": f"*{dtype}", "index": "*i64"}
    return _forward(
        f"quotient-remainder {combine}, {dtype} width {width}, {length} ids",
        "quotient_remainder_kernel",
        tile,
        {**rows, "buckets": "i32", "reciprocal": "i64"},
        {"D": width, "D_PADDED": padded, "COMBINE": combine},
        wide_loads=2 * _loads(tile, padded, dtype),
        archs=archs,
    )


def _multi_hash(dtype: str, width: int, hashes: int) -> Variant:
    tile, padded = choose_tile(2 * width, LENGTH), next_power_of_2(width)
    rows = {"pool": f"*{dtype}", "factors": f"*{dtype}", "ids": "*i64", "seeds": "*i64"}
    return _forward(
        f"multi-hash of {hashes}, {dtype} width {width}, {LENGTH} ids",
        "multi_hash_kernel",
        tile,
        {**rows, "pool_rows": "i32", "factor_rows": "i32"},
        {"K": hashes, "D": width, "D_PADDED": padded},
        wide_loads=hashes * _loads(tile, padded, dtype),
    )


def _codebook(dtype: str, parts: int, width: int) -> Variant:
    padded = next_power_of_2(parts), next_power_of_2(width)
    tile = choose_tile(padded[0] * padded[1], LENGTH)
    return _forward(
        f"codebook {dtype}, {parts} parts of {width}, {LENGTH} ids",
        "codebook_kernel",
        tile,
        {"codes": "*u8", "codebook": f"*{dtype}", "index": "*i64", "entries": "i32"},
        {"PARTS": parts, "PARTS_PADDED": padded[0], "D": width, "D_PADDED": padded[1]},
        wide_loads=_loads(tile, padded[0] * padded[1], dtype),
    )


def _robe(block: int, pieces: int) -> Variant:
    """Pieces begin at any number, so that no wider load than a number's is allowed."""
    padded = next_power_of_2(pieces), next_power_of_2(block)
    tile = choose_tile(padded[0] * padded[1], LENGTH)
    return _forward(
        f"robe fp32, {pieces} pieces of {block}, {LENGTH} ids",
        "robe_kernel",
        tile,
        {"array": "*fp32", "ids": "*i64", "seeds": "*i64", "numbers": "i32"},
        {
            "PIECES": pieces,
            "PIECES_PADDED": padded[0],
            "BLOCK": block,
            "BLOCK_PADDED": padded[1],
            "WIDTH": pieces * block,
        },
        wide_loads=0,
    )


def _row_sums(width: int, *, is_product: bool, is_shifted: bool = False) -> Variant:
    pointers = {"grad": "*fp32", "sources": "*i64", "scales": "*fp32", "others": "*fp32"}
    pointers |= {"other_rows": "*i64", "shifts": "*i32", "begins": "*i64", "ends": "*i64"}
    lanes, padded = segment_lanes(width), next_power_of_2(width)
    wide = max(1, lanes * padded * 4 // (16 * WARP)) * (2 if is_product else 1)
    kind = "products" if is_product else "pieces" if is_shifted else "rows"
    return Variant(
        name=f"row sums of {kind}, width {width}",
        kernel="row_sums_kernel",
        arguments={**pointers, "out": "*fp32"},
        constants={
            "D": width,
            "D_PADDED": padded,
            "LANES": lanes,
            "SCALED": True,
            "MULTIPLIED": is_product,
            "SHIFTED": is_shifted,
        },
        aligned=(*pointers, "out"),
        wide_loads=0 if is_shifted else wide,
    )


def _merge(width: int) -> Variant:
    lanes, padded = segment_lanes(width), next_power_of_2(width)
    return Variant(
        name=f"merge, width {width}",
        kernel="merge_kernel",
        arguments={"sums": "*fp32", "starts": "*i64", "rows": "i32"},
        constants={"RUN": 1024, "D": width, "D_PADDED": padded, "LANES": lanes},
        aligned=("sums", "starts"),
        wide_loads=max(1, lanes * padded * 4 // (16 * WARP)),
    )


def _terms(width: int, hashes: int) -> Variant:
    pointers = {"grad": "*fp32", "pool": "*fp32", "factors": "*fp32", "ids": "*i64"}
    pointers |= {"bags": "*i64", "scales": "*fp32", "seeds": "*i64", "rows": "*i32"}
    pointers |= {"owns": "*i32", "coefficients": "*fp32", "slopes": "*fp32"}
    lanes, padded = segment_lanes(width), next_power_of_2(width)
    return Variant(
        name=f"terms of multi-hash of {hashes}, width {width}",
        kernel="multi_hash_terms_kernel",
        arguments={**pointers, "count": "i32", "pool_rows": "i32", "factor_rows": "i32"},
        constants={
            "K": hashes,
            "D": width,
            "D_PADDED": padded,
            "LANES": lanes,
            "SCALED": True,
        },
        aligned=tuple(pointers),
        wide_loads=(1 + hashes) * max(1, lanes * padded * 4 // (16 * WARP)),
    )


def _variants() -> Iterator[Variant]:
    yield _pairs("fp32", 64, 0, archs=(90, 80))
    yield _pairs("fp16", 128, 0)
    yield _pairs("bf16", 32, 2, length=1)
    yield _multi_hash("fp32", 64, 4)
    yield _multi_hash("fp16", 64, 4)
    yield _codebook("fp16", 16, 8)
    yield _robe(4, 16)
    yield _row_sums(64, is_product=True)
    yield _row_sums(16, is_product=False, is_shifted=True)
    yield _merge(64)
    yield _terms(64, 4)


VARIANTS = tuple(_variants())
