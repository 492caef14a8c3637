"""Launches of the quantised lookup."""

from __future__ import annotations

import torch

from muxrec_kernels.quantised_lookup import packed_row_bytes, pool_quantised_rows, quantised_lookup
from muxrec_kernels.testing import make_jagged


def look_up(
    lengths: list[int],
    *,
    batch: int,
    rows: int,
    width: int,
    bits: int,
    slots: int = 0,
    dtype: torch.dtype = torch.float32,
    pooling: str = "sum",
    weighted: bool = False,
) -> None:
    """Hash ids for ``slots`` slots, or pool given rows where there are none."""
    bags = make_jagged(lengths, batch_size=batch)
    table = torch.zeros(rows, packed_row_bytes(width, bits), dtype=torch.uint8)
    run, hashes = pool_quantised_rows, ()
    if slots:
        features = torch.arange(slots) % (len(lengths) // batch)
        run, hashes = quantised_lookup, (features, torch.arange(slots))
    run(
        table,
        bags.ids,
        bags.offsets,
        *hashes,
        width=width,
        bits=bits,
        batch_size=batch,
        weights=torch.ones(bags.ids.numel()) if weighted else None,
        pooling=pooling,
        dtype=dtype,
    )


CALLS = {
    "one of everything": lambda: look_up([1], batch=1, rows=1, width=1, bits=8, slots=1),
    "one row": lambda: look_up([1], batch=1, rows=1, width=1, bits=2),
    "no ids": lambda: look_up([0, 0], batch=2, rows=3, width=11, bits=4, slots=1),
    "multiples of 16": lambda: look_up(
        [1] * 32, batch=16, rows=16, width=64, bits=4, slots=16, dtype=torch.float16
    ),
    "long bags, weighted": lambda: look_up(
        [200, 0, 3], batch=3, rows=99, width=60, bits=8, slots=3, pooling="mean", weighted=True
    ),
}
