"""From a method's name and a budget to declared features and one table that all of them read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from muxrec.bench.compression.clicks import ClickData
from muxrec.errors import RecipeError
from muxrec.spec.features import (
    FeatureSpec,
    TableMethod,
    TableOptimizerName,
    TableSpec,
    check_features,
)
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.tables.methods import METHODS

TABLE = "table"
_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:-([1-9][0-9]*))?")


@dataclass(frozen=True)
class Contestant:
    """A table method as it takes part.

    Attributes:
        method: A table method.
        probes: Rows per id, side by side; each is ``width / probes`` numbers wide.
    """

    method: TableMethod
    probes: int = 1

    @property
    def name(self) -> str:
        """``unified-4`` is the unified table with four probes; one probe is not spelled out."""
        return f"{self.method}-{self.probes}" if self.probes > 1 else self.method

    @property
    def has_budget(self) -> bool:
        """Whether a budget sets its size; a full table has the size that it has."""
        return METHOD_SPECS[self.method].free is not None


@dataclass(frozen=True)
class Plan:
    """Declarations that :func:`muxrec.tables.build.build_tables` takes.

    Attributes:
        features: The task's features, all on one table.
        table: The table.
        vocabularies: Feature name -> ids of the training part with their counts.
    """

    features: tuple[FeatureSpec, ...]
    table: TableSpec
    vocabularies: Mapping[str, Vocabulary]

    def under(self, optimizer: TableOptimizerName) -> Plan:
        """The same with rows that are updated by ``optimizer``."""
        return replace(self, table=replace(self.table, optimizer=optimizer))


def contestant(name: str) -> Contestant:
    """The contestant called ``name``: a method, then ``-`` and its probes where there are several.

    Raises:
        RecipeError: There is no such method.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in METHODS:
        known = ", ".join(METHODS)
        raise RecipeError(f"--methods: no method {name!r} (known: {known}; unified-4: 4 probes)")
    return Contestant(cast(TableMethod, match[1]), int(match[2] or 1))


def plan(entrant: Contestant, data: ClickData, *, budget: float, width: int, init: float) -> Plan:
    """A table for the features of ``data`` that holds ``budget`` of the bytes of full tables.

    Args:
        entrant: The method.
        data: The task; ids are known from its training part only.
        budget: Share of full tables' bytes, above 0; methods without a budget have 1.
        width: Width of every feature's vector.
        init: Rows start uniform in ``[-init, init]``.

    Raises:
        RecipeError: The method cannot have this budget, width or number of probes.
    """
    if width % entrant.probes:
        raise RecipeError(f"{entrant.name}: {entrant.probes} probes do not divide width {width}")
    words = {f.name: build_vocabulary(f.name, data.ids(f.name, "train")) for f in data.features}
    chunk, size = width // entrant.probes, _size(entrant, budget)
    table = TableSpec(TABLE, entrant.method, chunk, budget=size, init=init)
    features = tuple(replace(f, table=TABLE, probes=entrant.probes) for f in data.features)
    if faults := check_features(features, (table,)):
        raise RecipeError(f"{entrant.name} at {budget:g}: {faults[0]}")
    return Plan(features, table, words)


def _size(entrant: Contestant, budget: float) -> str | None:
    """The budget of a table that holds the share ``budget`` of full tables' bytes."""
    if entrant.has_budget:
        return f"{100 * budget:g}%"
    if budget != 1:
        raise RecipeError(f"{entrant.name} has no size to set: its budget is 1, got {budget:g}")
    return None
