"""What there is to know of every table method, computed from the dict of methods itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from muxrec.spec.features import FeatureSpec, TableMethod, TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.budget import fill_budget, served_bytes
from muxrec.tables.memory import training_bytes
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import Declared

WIDTH, BUDGET = 16, "10%"
IDS = {"item": 10_000, "brand": 100}
"""Known ids of the example's features; mixed dimensions need two to differ."""
EXAMPLE = (
    f"bytes per id: two features of {IDS['item']:,} and {IDS['brand']:,} ids, vectors of {WIDTH} "
    f"numbers, a budget of {BUDGET} of full fp32 tables for methods with a size of their own"
)


@dataclass(frozen=True)
class MethodFacts:
    """One line of the list of methods.

    Attributes:
        name: Key in recipes.
        title: What it does.
        paper: Where it is from.
        is_open: Whether unseen ids have vectors and no dictionary of known ids is needed.
        probes: Whether features may read several rows per id.
        tables: Physical tables of the example in the first stage.
        stages: Names of the stages of its training.
        size: What a budget sets, ``rows`` or an option; None where nothing does.
        training: Bytes per id in the first stage with optimiser state, without the dictionary.
        serving: Bytes per id when served, without the dictionary.
        is_found: Whether training finds the size, so that ``serving`` is what it is at most.
    """

    name: str
    title: str
    paper: str
    is_open: bool
    probes: bool
    tables: int
    stages: tuple[str, ...]
    size: str | None
    training: float
    serving: float
    is_found: bool


def method_facts() -> list[MethodFacts]:
    """Facts of all methods, in the order of the dict; bytes are of :data:`EXAMPLE`."""
    return [_facts_of(cast(TableMethod, name)) for name in METHODS]


def _facts_of(name: TableMethod) -> MethodFacts:
    method, spec, features = METHODS[name], METHOD_SPECS[name], _features()
    known = {
        feature: build_vocabulary(feature, range(size), counts=range(size, 0, -1))
        for feature, size in IDS.items()
    }
    declared = TableSpec("table", name, WIDTH, budget=BUDGET if spec.free else None)
    table = fill_budget(declared, features, known).table if spec.free else declared
    first, stages = method.lower(Declared(table, features, known)), method.stages_of(table)
    trained, ids = training_bytes(first), sum(IDS.values())
    return MethodFacts(
        name,
        method.title,
        method.source,
        is_open=not first.known,
        probes=spec.has_probes,
        tables=len(first.tables),
        stages=tuple(stage.name for stage in stages),
        size=spec.free,
        training=(trained.total - trained.dictionary) / ids,
        serving=served_bytes(table, features, known) / ids,
        is_found=spec.free is None and len(stages) > 1,
    )


def _features() -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(name, "id", (name,), "id", table="table") for name in IDS)
