"""A lookup whose gradient waits for the update, so that no gradient of rows is ever made."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.multiplexed_lookup import multiplexed_lookup
from muxrec_kernels.row_update import (
    RowState,
    Rule,
    slots_of_features,
    update_rows_of_lookup,
)


class _Lookup(NamedTuple):
    ids: Tensor
    offsets: Tensor
    slot_features: Tensor
    slot_seeds: Tensor
    batch_size: int
    weights: Tensor | None
    pooling: str

    def __call__(self, table: Tensor) -> Tensor:
        return multiplexed_lookup(
            table, *self[:4], batch_size=self.batch_size, weights=self.weights, pooling=self.pooling
        )

    def gradient(self, table: Tensor, grad_out: Tensor) -> Tensor:
        """The table's sparse gradient, as the lookup's own backward makes it."""
        with torch.enable_grad():
            leaf = table.detach().requires_grad_()
            return torch.autograd.grad(self(leaf), leaf, grad_out)[0]


class DeferredLookup:
    """Lookups of one table, and the gradient of the last one's output until it is taken.

    A backward leaves the gradient of the output here and none at the table. A second backward
    before the update turns both into the table's sparse gradient, which then adds up as any other.
    """

    def __init__(self) -> None:
        self._waiting: tuple[_Lookup, Tensor] | None = None
        self._slots: tuple[Tensor, Tensor] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a gradient waits."""
        return self._waiting is not None

    def __call__(
        self,
        table: Tensor,
        ids: Tensor,
        offsets: Tensor,
        slot_features: Tensor,
        slot_seeds: Tensor,
        *,
        batch_size: int,
        weights: Tensor | None = None,
        pooling: str = "sum",
    ) -> Tensor:
        """Pooled rows; see :func:`muxrec_kernels.multiplexed_lookup.multiplexed_lookup`."""
        lookup = _Lookup(ids, offsets, slot_features, slot_seeds, batch_size, weights, pooling)
        return _Deferred.apply(table, self, lookup)  # type: ignore[return-value]

    def clear(self) -> None:
        """Drop the gradient that waits."""
        self._waiting = None

    def settle(self, table: Tensor) -> None:
        """Turn the gradient that waits into the table's sparse gradient.

        Args:
            table: The leaf that was looked up.
        """
        if self._waiting is not None:
            lookup, grad_out = self._waiting
            found = lookup.gradient(table, grad_out)
            table.grad = found if table.grad is None else table.grad + found
            self.clear()

    def update(self, table: Tensor, state: RowState, rule: Rule) -> None:
        """Update the rows that were read, in place, and drop the gradient that waits.

        Args:
            table: Rows, detached.
            state: The rule's state.
            rule: The optimiser.

        Raises:
            ValueError: No gradient waits.
        """
        if self._waiting is None:
            raise ValueError("no gradient waits: run a backward first, one to an update")
        lookup, grad_out = self._waiting
        self.clear()
        update_rows_of_lookup(
            table,
            state,
            grad_out,
            lookup.ids,
            lookup.offsets,
            self._feature_slots(lookup),
            lookup.slot_seeds,
            batch_size=lookup.batch_size,
            weights=lookup.weights,
            pooling=lookup.pooling,
            rule=rule,
        )

    def _feature_slots(self, lookup: _Lookup) -> Tensor:
        """Made once for a table's slots: it waits for the device."""
        if self._slots is None or self._slots[0] is not lookup.slot_features:
            features = (lookup.offsets.numel() - 1) // lookup.batch_size
            slots = slots_of_features(lookup.slot_features, features)
            self._slots = lookup.slot_features, slots
        return self._slots[1]

    def _keep(self, table: Tensor, lookup: _Lookup, grad_out: Tensor) -> Tensor | None:
        if lookup.ids.numel() == 0:
            return None
        if self._waiting is None and table.grad is None:
            self._waiting = lookup, grad_out
            return None
        self.settle(table)
        return lookup.gradient(table, grad_out)


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, table: Tensor, keeper: DeferredLookup, lookup: _Lookup
    ) -> Tensor:
        ctx.table, ctx.keeper, ctx.lookup = table, keeper, lookup
        return lookup(table.detach())

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        return ctx.keeper._keep(ctx.table, ctx.lookup, grad_out), None, None
