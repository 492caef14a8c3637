"""Launches of the pooled lookup and of its gradient."""

from __future__ import annotations

import torch

from muxrec_kernels.multiplexed_lookup import multiplexed_lookup, pooled_lookup
from muxrec_kernels.testing import make_jagged


def look_up(
    lengths: list[int],
    *,
    batch: int,
    shape: tuple[int, int],
    slots: int = 2,
    dtype: torch.dtype = torch.float32,
    pooling: str = "sum",
    weighted: bool = False,
) -> None:
    bags = make_jagged(lengths, batch_size=batch)
    table = torch.zeros(shape, dtype=dtype, requires_grad=True)
    multiplexed_lookup(
        table,
        bags.ids,
        bags.offsets,
        torch.arange(slots) % (len(lengths) // batch),
        torch.arange(slots),
        batch_size=batch,
        weights=torch.ones(bags.ids.numel()) if weighted else None,
        pooling=pooling,
    ).sum().backward()


def pool(lengths: list[int], *, shape: tuple[int, int], weighted: bool) -> None:
    bags = make_jagged(lengths, batch_size=len(lengths), repeat=shape[0])
    pooled_lookup(
        torch.zeros(shape, requires_grad=True),
        bags.ids,
        bags.offsets,
        weights=torch.ones(bags.ids.numel()) if weighted else None,
    ).sum().backward()


CALLS = {
    "one of everything": lambda: look_up([1], batch=1, shape=(1, 1), slots=1),
    "no ids": lambda: look_up([0, 0], batch=2, shape=(5, 1), slots=1),
    "one long bag": lambda: look_up([600], batch=1, shape=(1, 4), slots=1),
    "multiples of 16": lambda: look_up(
        [4096] + [0] * 31, batch=16, shape=(32, 32), slots=16, dtype=torch.float16
    ),
    "weighted means of 16 bits": lambda: look_up(
        [3, 0, 700, 20],
        batch=2,
        shape=(100, 64),
        slots=3,
        dtype=torch.bfloat16,
        pooling="mean",
        weighted=True,
    ),
    "one row": lambda: pool([1], shape=(1, 1), weighted=False),
    "rows": lambda: pool([3, 20, 0], shape=(99, 12), weighted=True),
}
