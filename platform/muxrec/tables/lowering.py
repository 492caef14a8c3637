"""From declared features and tables to groups of reads, one group per physical table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import Arrays, Declared, Lowered, PhysicalTable, Read

if TYPE_CHECKING:
    from muxrec.tables.state import TableRows


@dataclass(frozen=True, eq=False)
class Group:
    """One physical table and everything that reads it.

    Attributes:
        table: The physical table.
        reads: Its reads, by feature and then probe; at least one.
        features: Names of the features that read it, in the order of ``reads``.
        is_per_id: Whether its rows are wanted for every id alone, unpooled.
    """

    table: PhysicalTable
    reads: tuple[Read, ...]
    features: tuple[str, ...]
    is_per_id: bool = False

    @property
    def chunks(self) -> list[int]:
        """Width of each feature's reads put side by side, in the order of ``features``."""
        counts = Counter(read.feature for read in self.reads)
        return [counts[name] * self.table.width for name in self.features]


@dataclass(frozen=True, eq=False)
class Place:
    """Where the training of a declared table is.

    Attributes:
        stage: Number of its stage.
        carried: What earlier stages left.
        values: Rows to begin the stage with, by physical table; the others are drawn.
    """

    stage: int = 0
    carried: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Lowering:
    """What every engine runs.

    Attributes:
        features: The sparse features, in declared order.
        declared: The tables that have readers, as declared, where their training is.
        lowered: What each became, in the same order.
        groups: One per physical table, in the order of their declaration.
        values: Rows to begin with, by physical table; the others are drawn.
        integers: Trained integers that are served as they are, by physical table.
    """

    features: tuple[FeatureSpec, ...]
    declared: tuple[Declared, ...]
    lowered: tuple[Lowered, ...]
    groups: tuple[Group, ...]
    values: Mapping[str, Tensor]
    integers: Mapping[str, TableRows] = field(default_factory=dict)

    @property
    def poolings(self) -> dict[str, str]:
        """Pooling of each feature."""
        return {feature.name: feature.pooling for feature in self.features}

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector, in declared order."""
        found = {name: width for each in self.lowered for name, width in each.widths.items()}
        return {feature.name: found[feature.name] for feature in self.features}

    @property
    def known(self) -> dict[str, Vocabulary]:
        """Vocabulary of each feature whose unknown ids are dropped."""
        return {name: words for each in self.lowered for name, words in each.known.items()}

    @property
    def combines(self) -> dict[str, nn.Module]:
        """Map of each feature that has one."""
        return {name: module for each in self.lowered for name, module in each.combines.items()}

    @property
    def per_id(self) -> frozenset[str]:
        """Features whose map sees every id alone."""
        return frozenset().union(*(each.per_id for each in self.lowered))

    def table_of(self, physical: str) -> Declared:
        """The declared table that a physical table belongs to."""
        for declared, lowered in zip(self.declared, self.lowered, strict=True):
            if any(table.name == physical for table in lowered.tables):
                return declared
        raise KeyError(physical)


def lower(
    features: tuple[FeatureSpec, ...],
    tables: tuple[TableSpec, ...],
    vocabularies: Mapping[str, Vocabulary],
    *,
    places: Mapping[str, Place] | None = None,
    seed: int = 0,
) -> Lowering:
    """Lower the sparse ``features`` and the ``tables`` that they read.

    Dense features and tables without a reader are left aside, so an ablation may pass fewer
    features than the recipe declares. The declaration itself was checked when the recipe was read.

    Args:
        features: Declared features.
        tables: Declared tables; their budgets are solved.
        vocabularies: Feature name -> its known ids, for features on tables that need them.
        places: Table name -> where its training is; by default at the beginning.
        seed: The run's seed, for methods that draw more than rows.

    Raises:
        RecipeError: A vocabulary that a table needs is not given.
    """
    sparse = tuple(feature for feature in features if feature.is_sparse)
    found = []
    for table in tables:
        readers = tuple(feature for feature in sparse if feature.table == table.name)
        if readers:
            place = (places or {}).get(table.name, Place())
            check_vocabularies(table, readers, vocabularies)
            found.append(
                (place, Declared(table, readers, vocabularies, place.stage, place.carried, seed))
            )
    lowered = tuple(METHODS[declared.table.method].lower(declared) for _, declared in found)
    values = [
        {**each.values, **place.values} for (place, _), each in zip(found, lowered, strict=True)
    ]
    return assemble(sparse, tuple(declared for _, declared in found), lowered, _merged(values))


def assemble(
    sparse: tuple[FeatureSpec, ...],
    declared: tuple[Declared, ...],
    lowered: tuple[Lowered, ...],
    values: Mapping[str, Tensor],
) -> Lowering:
    """The lowering of the parts; ``values`` of tables that are not there are left out."""
    groups = tuple(group for each in lowered for group in _groups(each))
    names = {group.table.name for group in groups}
    return Lowering(
        sparse, declared, lowered, groups, {k: v for k, v in values.items() if k in names}
    )


def _groups(lowered: Lowered) -> list[Group]:
    groups = []
    for table in lowered.tables:
        mine = tuple(read for read in lowered.reads if read.table == table.name)
        names = tuple(dict.fromkeys(read.feature for read in mine))
        kinds = {name in lowered.per_id for name in names}
        if len(kinds) != 1:
            raise TypeError(f"{table.name} is read pooled by some features and per id by others")
        groups.append(Group(table, mine, names, kinds.pop()))
    return groups


def _merged(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: rows for part in parts for name, rows in part.items()}


def check_vocabularies(
    table: TableSpec, readers: tuple[FeatureSpec, ...], vocabularies: Mapping[str, Vocabulary]
) -> None:
    """Refuse a table whose readers' known ids are not given, where it needs them.

    A method of open ids needs them too where it shares out its rows to several readers.

    Raises:
        RecipeError: A reader has no vocabulary.
    """
    method = METHOD_SPECS[table.method]
    if not method.needs_vocabulary and not (method.deals_rows and len(readers) > 1):
        return
    for reader in readers:
        if reader.name not in vocabularies:
            known = ", ".join(sorted(vocabularies)) or "none"
            raise RecipeError(
                f"tables.{table.name} is {table.method} and read by {reader.name}, whose "
                f"vocabulary was not given (given: {known}): pass the prepared items' vocabularies"
            )
