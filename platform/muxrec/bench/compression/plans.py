"""From a method's name and a budget to declared features and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast, get_args

from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableMethod, TableSpec, check_features
from muxrec.spec.hashing import Int64Array
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary

FULL = "full"
_NAME = re.compile(r"([a-z][a-z0-9_]*?)(?:-([1-9][0-9]*))?")


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


@dataclass(frozen=True)
class Plan:
    """Declarations that :func:`muxrec.tables.build.build_tables` takes.

    Attributes:
        features: The task's features, each with its table.
        tables: The tables.
        vocabularies: Feature name -> ids of the training part.
    """

    features: tuple[FeatureSpec, ...]
    tables: tuple[TableSpec, ...]
    vocabularies: Mapping[str, Vocabulary]


def contestant(name: str) -> Contestant:
    """The contestant called ``name``: a method, then ``-`` and its probes where there are several.

    Raises:
        RecipeError: There is no such method.
    """
    match = _NAME.fullmatch(name)
    known = get_args(TableMethod)
    if match is None or match[1] not in known:
        raise RecipeError(f"--methods: no method {name!r} (known: {', '.join(known)}, unified-4)")
    return Contestant(cast(TableMethod, match[1]), int(match[2] or 1))


def plan(
    entrant: Contestant,
    features: tuple[FeatureSpec, ...],
    known: Mapping[str, Int64Array],
    *,
    budget: float,
    width: int,
    init: float,
) -> Plan:
    """Tables for ``features`` that hold ``budget`` of the numbers of full tables.

    Args:
        entrant: The method.
        features: The task's features.
        known: Feature name -> its distinct ids in the training part.
        budget: Share of a full table's numbers, above 0; a full table has 1.
        width: Width of every feature's vector.
        init: Rows start uniform in ``[-init, init]``.

    Raises:
        RecipeError: The method cannot have this budget, width or number of probes.
    """
    if width % entrant.probes:
        raise RecipeError(f"{entrant.name}: {entrant.probes} probes do not divide width {width}")
    chunk = width // entrant.probes
    if entrant.method == "unified":
        numbers = budget * width * sum(len(ids) for ids in known.values())
        tables = (TableSpec("unified", "unified", chunk, rows=_rows(numbers / chunk), init=init),)
        read = {feature.name: "unified" for feature in features}
    else:
        tables = tuple(
            _own_table(entrant, f.name, budget=budget, ids=len(known[f.name]), chunk=chunk)
            for f in features
        )
        tables = tuple(replace(table, init=init) for table in tables)
        read = {feature.name: feature.name for feature in features}
    declared = tuple(replace(f, table=read[f.name], probes=entrant.probes) for f in features)
    if faults := check_features(declared, tables):
        raise RecipeError(f"{entrant.name} at {budget:g}: {faults[0]}")
    return Plan(
        declared, tables, {f.name: build_vocabulary(f.name, known[f.name]) for f in features}
    )


def _own_table(
    entrant: Contestant, feature: str, *, budget: float, ids: int, chunk: int
) -> TableSpec:
    if entrant.method == FULL:
        if budget != 1:
            raise RecipeError(f"full tables have the budget 1, got {budget:g}")
        return TableSpec(feature, FULL, chunk)
    rows = _rows(budget * ids * entrant.probes)
    return TableSpec(feature, entrant.method, chunk, rows=rows)


def _rows(wanted: float) -> int:
    return max(1, int(wanted))
