"""From declared features and tables to groups of reads, one group per physical table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.methods import METHODS, PhysicalTable, Read


@dataclass(frozen=True)
class Group:
    """One physical table and everything that reads it.

    Attributes:
        table: The physical table.
        reads: Its reads, by feature and then probe; at least one.
        features: Names of the features that read it, in the order of ``reads``.
    """

    table: PhysicalTable
    reads: tuple[Read, ...]
    features: tuple[str, ...]

    @property
    def chunks(self) -> list[int]:
        """Width of each feature's reads put side by side, in the order of ``features``."""
        counts = Counter(read.feature for read in self.reads)
        return [counts[name] * self.table.width for name in self.features]


@dataclass(frozen=True)
class Lowering:
    """What every engine runs.

    Attributes:
        features: The sparse features, in declared order.
        tables: The tables as declared.
        groups: One per physical table, in the order of their declaration.
    """

    features: tuple[FeatureSpec, ...]
    tables: tuple[TableSpec, ...]
    groups: tuple[Group, ...]

    @property
    def poolings(self) -> dict[str, str]:
        """Pooling of each feature."""
        return {feature.name: feature.pooling for feature in self.features}

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector, in declared order."""
        tables = {table.name: table for table in self.tables}
        return {
            feature.name: METHODS[tables[feature.table or ""].method].width(
                tables[feature.table or ""], feature
            )
            for feature in self.features
        }


def lower(
    features: tuple[FeatureSpec, ...],
    tables: tuple[TableSpec, ...],
    vocabularies: Mapping[str, Vocabulary],
) -> Lowering:
    """Lower the sparse ``features`` and the ``tables`` that they read.

    Dense features and tables without a reader are left aside, so an ablation may pass fewer
    features than the recipe declares. The declaration itself was checked when the recipe was read.

    Args:
        features: Declared features.
        tables: Declared tables.
        vocabularies: Feature name -> its known ids, for features on full tables.

    Raises:
        RecipeError: A full table's vocabulary is not given.
    """
    sparse = tuple(feature for feature in features if feature.is_sparse)
    groups: list[Group] = []
    for table in tables:
        readers = tuple(feature for feature in sparse if feature.table == table.name)
        if readers:
            groups += _groups(table, readers, vocabularies)
    return Lowering(sparse, tables, tuple(groups))


def _groups(
    table: TableSpec, readers: tuple[FeatureSpec, ...], vocabularies: Mapping[str, Vocabulary]
) -> list[Group]:
    method = METHODS[table.method]
    if table.method == "full" and readers[0].name not in vocabularies:
        known = ", ".join(sorted(vocabularies)) or "none"
        raise RecipeError(
            f"tables.{table.name} is full and read by {readers[0].name}, whose vocabulary was not "
            f"given (given: {known}): pass the prepared items' vocabularies"
        )
    physical = method.physical_tables(table, readers, vocabularies)
    reads = [read for reader in readers for read in method.reads(table, reader, vocabularies)]
    groups = []
    for each in physical:
        mine = tuple(read for read in reads if read.table == each.name)
        groups.append(Group(each, mine, tuple(dict.fromkeys(read.feature for read in mine))))
    return groups
