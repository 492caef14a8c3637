"""The contrastive loss's kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from muxrec_kernels.contrastive_loss.tiles import (
    Tile,
    choose_tiles,
    lanes,
    padded_width,
    row_warps,
)
from muxrec_kernels.machine_code import Variant

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MOST = 255
"""Matrix instructions want large tiles: one program of 8 warps fills a multiprocessor."""

_SIDES = {"scale": "*fp32", "offsets": "*i64", "listed": "*i64"}
_QUERY_ITEMS = {"query_items": "*i32", "candidate_items": "*i32"}
_ROWS = {"row_terms": "*fp32", "column_terms": "*fp32", "row_items": "*i32", "column_items": "*i32"}
_ROWS |= {"row_count": "i32", "column_count": "i32"}


def _tiled(
    kernel: str, dtype: str, width: int, tile: Tile, arguments: Mapping[str, str], **options: Any
) -> Variant:
    """A kernel over tiles of scores; ``options`` are constants, ``archs`` aside."""
    every = {**arguments, **_SIDES}
    constants = {
        "D": width,
        "D_PADDED": padded_width(width),
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "SAME_ITEM": True,
        "LISTED": options.get("listed", False),
        "PRECISION": "ieee",
        "AS_FLOAT32": False,
    }
    if kernel != "gradient_kernel":
        constants["CHUNK"] = tile.chunk
    listed = ", listed entries" if constants["LISTED"] else ""
    return Variant(
        name=f"{kernel.removesuffix('_kernel')}, {dtype} width {width}{listed}",
        kernel=kernel,
        arguments=every,
        constants=constants,
        aligned=(*(name for name, kind in every.items() if kind[0] == "*"), *_strides(every)),
        warps=tile.warps,
        stages=tile.stages,
        registers=MOST,
        wide_loads=tile.columns
        * tile.chunk
        * (4 if dtype == "fp32" else 2)
        // 16
        // 32
        // tile.warps,
        needs=() if dtype == "fp32" else ("HGMMA",),
        archs=options.get("archs", (90,)),
    )


def _strides(arguments: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in ("span", "stride") if name in arguments)


def _forward(dtype: str, width: int, **options: Any) -> Variant:
    pointers = {"queries": f"*{dtype}", "candidates": f"*{dtype}", "terms": "*fp32", "out": "*fp32"}
    counts = {"query_count": "i32", "candidate_count": "i32", "span": "i32"}
    tile = choose_tiles(DTYPES[dtype], width).forward
    arguments = {**pointers, **_QUERY_ITEMS, **counts}
    return _tiled("forward_kernel", dtype, width, tile, arguments, **options)


def _gradient(dtype: str, width: int, **options: Any) -> Variant:
    tiles = choose_tiles(DTYPES[dtype], width)
    pointers = {"rows": f"*{dtype}", "columns": f"*{dtype}", **_ROWS}
    if tiles.slabs:
        pointers |= {"out": f"*{dtype}", "stride": "i32"}
    else:
        pointers |= {"out": "*fp32", "span": "i32"}
    kernel = "slab_kernel" if tiles.slabs else "gradient_kernel"
    return _tiled(kernel, dtype, width, tiles.gradient, pointers, **options)


def _by_row(kernel: str, width: int, arguments: Mapping[str, str], **constants: Any) -> Variant:
    return Variant(
        name=f"{kernel.removesuffix('_kernel')}, bf16 width {width}",
        kernel=kernel,
        arguments=arguments,
        constants={
            "D": width,
            "D_PADDED": padded_width(width),
            "LANES": lanes(width),
            "SPLITS": 3,
            **constants,
        },
        aligned=tuple(name for name, kind in arguments.items() if kind[0] == "*"),
        warps=row_warps(width),
        wide_loads=1,
    )


def _positives(width: int) -> Variant:
    floats = ("scale", "terms", "parts", "weights", "scores", "kept", "query_terms", "inverse")
    arguments = dict.fromkeys((*floats, "losses"), "*fp32") | _QUERY_ITEMS
    arguments |= dict.fromkeys(("offsets", "columns", "ignored_offsets", "listed"), "*i64")
    arguments |= {"queries": "*bf16", "candidates": "*bf16", "missing": "*i1", "query_count": "i32"}
    switches = dict.fromkeys(("SAME_ITEM", "LISTED", "MISSING"), True)
    return _by_row("positives_kernel", width, arguments, SPLITS_PADDED=4, **switches)


def _finish(width: int) -> Variant:
    floats = ("parts", "scores", "kept", "query_terms", "inverse", "factor", "out", "dots")
    arguments = dict.fromkeys(floats, "*fp32") | {"row_count": "i32"}
    arguments |= dict.fromkeys(("offsets", "places", "entries"), "*i64")
    arguments |= {"own": "*bf16", "others": "*bf16"}
    return _by_row("finish_kernel", width, arguments, BY_CANDIDATE=True, BITS=16, SHIFT=0)


def _variants() -> Iterator[Variant]:
    for width in (64, 128, 256):
        yield _forward("bf16", width)
        yield _gradient("bf16", width)
    yield _forward("bf16", 1024)
    yield _gradient("bf16", 1024)
    yield _gradient("fp16", 128, listed=True)
    yield _gradient("fp32", 128)
    yield _positives(128)
    yield _finish(128)


VARIANTS = tuple(_variants())
