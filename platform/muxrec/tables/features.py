"""From the rows that were read to the features' vectors: the steps that every engine ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from muxrec.tables.addressing import Found, HashedRows, KnownIds, MappedRows, all_known
from muxrec.tables.bags import Bags
from muxrec.tables.lowering import Lowering
from muxrec.tables.methods.protocol import Hook
from muxrec_kernels.multiplexed_lookup import POOLING_EXPONENTS

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Gathers(Protocol):
    """One physical table, for lookups of padded ids."""

    features: tuple[str, ...]
    address: HashedRows | MappedRows

    def gather(self, rows: Tensor) -> Tensor:
        """Rows ``[..., d]`` by number, int64 of any shape."""
        ...


class Vectors(nn.Module):
    """Every feature's way from the rows read for it to its vector.

    The maps lie in a list and not in a ``ModuleDict``, which refuses names such as ``type``.
    """

    def __init__(self, lowering: Lowering) -> None:
        super().__init__()
        combines = lowering.combines
        self.names = [feature.name for feature in lowering.features]
        self.maps = nn.ModuleList(combines.get(name, nn.Identity()) for name in self.names)
        self.known = KnownIds(lowering.known)
        self.per_id, self.poolings = lowering.per_id, lowering.poolings
        self.hooks: tuple[Hook, ...] = tuple(
            each.hook for each in lowering.lowered if each.hook is not None
        )
        # Dozens of features in a small batch: calling a module for each would be felt.
        self.is_plain = not combines
        self.rows_kept = False
        self._checked = [(name, name in lowering.known) for name in self.names]

    def find(self, sparse: Mapping[str, Bags]) -> dict[str, Found]:
        """The ids of every feature that its table knows.

        Raises:
            KeyError: A feature is missing from ``sparse``.
            ValueError: The features have different numbers of bags.
        """
        # A module call for each of dozens of features would be felt in a small batch.
        found = {
            name: self.known(name, sparse[name]) if is_checked else all_known(sparse[name])
            for name, is_checked in self._checked
        }
        if len({each.offsets.numel() for each in found.values()}) > 1:
            sizes = ", ".join(f"{name} {sparse[name].batch_size}" for name in self.names)
            raise ValueError(f"all features must have the same number of bags, got {sizes}")
        return found

    def most_ids(self, found: Mapping[str, Found]) -> int:
        """Largest number of ids of a feature whose map sees every id alone; 0 without one."""
        return max((found[name].ids.numel() for name in self.per_id), default=0)

    def forward(
        self,
        parts: Sequence[Mapping[str, Tensor]],
        found: Mapping[str, Found],
        ready: Mapping[str, Tensor] = NOTHING,
    ) -> dict[str, Tensor]:
        """Vectors, float32 ``[B, width]``, of all features in declared order.

        Args:
            parts: Per physical table, each of its features' reads: pooled ``[B, P * d]``, or
                ``[M, P * d]`` for single ids, of which the first N count.
            found: The features' ids.
            ready: Vectors of features that need no map any more, by name.
        """
        vectors = {}
        for name, module in zip(self.names, self.maps, strict=True):
            if name in ready:
                vectors[name] = ready[name]
                continue
            mine = [part[name] for part in parts if name in part]
            rows = mine[0] if len(mine) == 1 else torch.cat(mine, dim=1) if mine else None
            if name in self.per_id:
                vectors[name] = self._pool(name, module, rows, found[name])
            elif rows is not None:
                vectors[name] = module(rows)
        return vectors

    def _pool(self, name: str, module: nn.Module, rows: Tensor | None, found: Found) -> Tensor:
        count = found.ids.numel()
        alone = torch.empty(count, 0, device=found.ids.device) if rows is None else rows[:count]
        sums = sum_ids(module(alone, found.ids, found.indices), found)
        return divide_bags(sums, found, self.poolings[name])

    def padded(self, name: str, ids: Tensor, mask: Tensor, groups: Sequence[Gathers]) -> Tensor:
        """The vector of feature ``name`` from padded ids, in operations that export to ONNX.

        Args:
            name: A sparse feature.
            ids: Raw ids, int64 ``[B, L]``; anything where the mask is 0.
            mask: Weight of each id, 0 where there is none, float32 ``[B, L]``.
            groups: All physical tables.

        Returns:
            float32 ``[B, width]``, equal to :meth:`forward` on the same bags.
        """
        index, mask = self.known.padded(name, ids, mask)
        read = [_gathered(each, name, ids, index) for each in groups if name in each.features]
        rows = torch.cat(read, dim=2) if read else mask.new_empty(*mask.shape, 0)
        module = self.maps[self.names.index(name)]
        if name not in self.per_id:
            return module(pool_padded(rows, mask, self.poolings[name]))
        flat = None if index is None else index.flatten()
        alone = module(rows.flatten(0, 1), ids.flatten(), flat)
        return pool_padded(alone.unflatten(0, ids.shape), mask, self.poolings[name])

    def penalty(self) -> Tensor | None:
        """Sum of the methods' loss terms after a forward; None where no method has one."""
        terms = [cast(Any, module).penalty() for module in self.maps if has(module, "penalty")]
        return torch.stack(terms).sum() if terms else None

    def architecture(self) -> Iterator[nn.Parameter]:
        """Parameters that only search steps train."""
        for module in self.maps:
            if has(module, "architecture"):
                yield from cast(Any, module).architecture()


def has(module: nn.Module, name: str) -> bool:
    """Whether a map has the optional method ``name``."""
    return callable(getattr(module, name, None))


def _gathered(each: Gathers, name: str, ids: Tensor, index: Tensor | None) -> Tensor:
    """Rows of all reads of one table side by side, ``[B, L, P * d]``; zeros where dropped."""
    rows, keep = each.address.padded(name, ids, index)
    found = each.gather(rows)
    if keep is not None:
        found = found * keep[..., None].to(found.dtype)
    return found.flatten(2)


def sum_ids(values: Tensor, found: Found) -> Tensor:
    """Weighted sum of single ids' vectors ``[N, w]`` over each bag, ``[B, w]``."""
    size = found.offsets.numel() - 1
    if found.weights is not None:
        values = values * found.weights[:, None]
    elif values.shape[0] == size and bool((found.offsets.diff() == 1).all()):
        return values
    bags = torch.arange(size, device=values.device).repeat_interleave(found.offsets.diff())
    return values.new_zeros(size, values.shape[1]).index_add(0, bags, values)


def divide_bags(sums: Tensor, found: Found, pooling: str) -> Tensor:
    """Summed bags ``[B, w]`` turned into ``pooling``; see :class:`muxrec.tables.bags.Bags`."""
    exponent = POOLING_EXPONENTS[pooling]
    if exponent == 0.0:
        return sums
    if found.weights is None:
        lengths = found.offsets.diff()
        return sums * lengths.clamp(min=1).to(sums.dtype).pow(-exponent)[:, None]
    powers = found.weights.square() if pooling == "sqrt" else found.weights
    totals = sum_ids(torch.ones_like(powers)[:, None], found._replace(weights=powers))
    return sums / _divisor(totals.to(sums.dtype), pooling)


def pool_padded(values: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the vectors of padded ids, in operations that ONNX has.

    Args:
        values: float32 ``[B, L, w]``; anything finite where the mask is 0.
        mask: Weight of each id, 0 where there is none, float32 ``[B, L]``.
        pooling: ``sum``, ``mean`` or ``sqrt``.

    Returns:
        float32 ``[B, w]``; zeros where an item has no id.
    """
    sums = (values * mask[:, :, None]).sum(dim=1)
    if pooling == "sum":
        return sums
    totals = (mask.square() if pooling == "sqrt" else mask).sum(dim=1, keepdim=True)
    return sums / _divisor(totals, pooling)


def _divisor(totals: Tensor, pooling: str) -> Tensor:
    """What sums of bags are divided by, given the bags' weights or squared weights ``[B, 1]``."""
    positive = torch.where(totals > 0, totals, 1.0)
    return positive.sqrt() if pooling == "sqrt" else positive
