"""Launches of the row update: of a lookup, of known rows, and behind a deferred lookup."""

from __future__ import annotations

import torch

from muxrec_kernels.row_update import (
    Rule,
    new_state,
    slots_of_features,
    update_rows,
    update_rows_of_lookup,
)
from muxrec_kernels.row_update.deferred import DeferredLookup
from muxrec_kernels.testing import make_jagged


def update_lookup(
    lengths: list[int],
    *,
    batch: int,
    shape: tuple[int, int],
    rule: Rule,
    slots: int = 1,
    dtype: torch.dtype = torch.float32,
    pooling: str = "sum",
    weighted: bool = False,
) -> None:
    bags = make_jagged(lengths, batch_size=batch)
    table, features = torch.zeros(shape, dtype=dtype), len(lengths) // batch
    update_rows_of_lookup(
        table,
        new_state(rule.kind, table),
        torch.zeros(batch, slots * shape[1]),
        bags.ids,
        bags.offsets,
        slots_of_features(torch.arange(slots) % features, features),
        torch.arange(slots),
        batch_size=batch,
        rule=rule,
        weights=torch.ones(bags.ids.numel()) if weighted else None,
        pooling=pooling,
    )


def update_known(count: int, shape: tuple[int, int], rule: Rule, dtype: torch.dtype) -> None:
    table, lookups = torch.zeros(shape, dtype=dtype), torch.arange(count)
    update_rows(
        table,
        new_state(rule.kind, table),
        lookups % shape[0],
        lookups,
        torch.zeros(count, shape[1]),
        rule=rule,
    )


def defer() -> None:
    keeper, bags = DeferredLookup(), make_jagged([2, 1], batch_size=2)
    table, slots = torch.zeros(1, 4, requires_grad=True), torch.zeros(1, dtype=torch.int64)
    keeper(table, bags.ids, bags.offsets, slots, slots, batch_size=2).sum().backward()
    keeper.update(table.detach(), new_state("adagrad", table), Rule("adagrad", 1))


CALLS = {
    "one of everything": lambda: update_lookup([1], batch=1, shape=(1, 1), rule=Rule("sgd", 1)),
    "one lookup of a 16-bit row": lambda: update_known(1, (1, 1), Rule("adam", 0.1), torch.float16),
    "no ids": lambda: update_lookup([0], batch=1, shape=(1, 1), rule=Rule("sgd", 1)),
    "multiples of 16": lambda: update_lookup(
        [16] * 32,
        batch=16,
        shape=(32, 64),
        rule=Rule("adagrad", 0.1),
        slots=16,
        dtype=torch.bfloat16,
    ),
    "weighted means": lambda: update_lookup(
        [9, 0, 50, 8],
        batch=2,
        shape=(9, 24),
        rule=Rule("adam", 1, eps=0),
        slots=3,
        pooling="mean",
        weighted=True,
    ),
    "two chunks, rounded to nearest": lambda: update_known(
        33, (7, 16), Rule("rmsprop", 1, rounding="nearest"), torch.float16
    ),
    "a deferred lookup": defer,
}
