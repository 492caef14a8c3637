"""Features whose vectors one kernel composes and pools, with no row of an id ever written.

A map that sees every id alone may offer ``in_one_pass``. Where the dispatcher picks Triton and this
process holds all rows of the map's tables as plain numbers, that kernel runs in place of the reads
and the map; everywhere else nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from torch import Tensor

from muxrec.tables.addressing import Found
from muxrec.tables.features import Vectors, divide_bags, has
from muxrec.tables.held import HeldTable, TableGroup
from muxrec_kernels.dispatch import Backend, choose_backend


class ComposesRows(Protocol):
    """A map with a kernel."""

    def in_one_pass(self, tables: Sequence[Tensor], found: Found, *, pooling: str) -> Tensor:
        """Pooled vectors, float32 ``[B, width]``.

        Args:
            tables: Rows of the tables that the feature reads, in the order of their declaration.
            found: The feature's known ids.
            pooling: ``mean`` and ``sqrt`` divide by the bag's length and its root.
        """
        ...


class Composed(NamedTuple):
    """A feature that can be done in one pass: its name, and the places of its tables."""

    name: str
    tables: tuple[int, ...]


def composed_features(vectors: Vectors, tables: Sequence[HeldTable]) -> tuple[Composed, ...]:
    """The features that can be done in one pass: with a kernel, and tables of plain rows."""
    found = [
        Composed(name, tuple(at for at, table in enumerate(tables) if name in table.group.features))
        for name, module in zip(vectors.names, vectors.maps, strict=True)
        if name in vectors.per_id and has(module, "in_one_pass")
    ]
    plain = {at for at, table in enumerate(tables) if isinstance(table, TableGroup)}
    return tuple(each for each in found if plain.issuperset(each.tables))


def covered_tables(features: Sequence[Composed], tables: Sequence[HeldTable]) -> frozenset[int]:
    """Places of the tables that no other features read."""
    names = {each.name for each in features}
    return frozenset(
        at for at, table in enumerate(tables) if names.issuperset(table.group.features)
    )


def compose(
    features: Sequence[Composed],
    vectors: Vectors,
    tables: Sequence[HeldTable],
    found: Mapping[str, Found],
) -> dict[str, Tensor]:
    """Vectors of ``features``, float32 ``[B, width]`` each; empty where no kernel would run."""
    devices = {_rows(each, tables)[0].device for each in features}
    if not any(choose_backend(device) is Backend.TRITON for device in devices):
        return {}
    return {each.name: _vectors(each, vectors, tables, found[each.name]) for each in features}


def _rows(feature: Composed, tables: Sequence[HeldTable]) -> list[Tensor]:
    return [cast(TableGroup, tables[at]).weight for at in feature.tables]


def _vectors(
    feature: Composed, vectors: Vectors, tables: Sequence[HeldTable], found: Found
) -> Tensor:
    # Looked up now: a stage may put the maps of an earlier one in their place.
    module = cast(ComposesRows, vectors.maps[vectors.names.index(feature.name)])
    rows = _rows(feature, tables)
    pooling = vectors.poolings[feature.name]
    if found.weights is None:
        return module.in_one_pass(rows, found, pooling=pooling)
    # The kernels divide by lengths, so weighted bags are divided afterwards.
    return divide_bags(module.in_one_pass(rows, found, pooling="sum"), found, pooling)
