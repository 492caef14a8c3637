"""From a contestant and a budget to declared features and one table that all of them read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.contestants import Contestant
from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableOptimizerName, TableSpec, check_features
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary

TABLE = "table"


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
    table = entrant.table(TableSpec(TABLE, "full", width, init=init), budget=budget)
    words = {f.name: build_vocabulary(f.name, data.ids(f.name, "train")) for f in data.features}
    features = tuple(replace(f, table=TABLE, probes=entrant.probes) for f in data.features)
    if faults := check_features(features, (table,)):
        raise RecipeError(f"{entrant.name} at {budget:g}: {faults[0]}")
    return Plan(features, table, words)
