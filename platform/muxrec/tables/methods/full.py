"""``full``: one row per known id, no collisions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.methods.protocol import PhysicalTable, Read, VocabularyAddress


class Full:
    """A row for every id of the training data; an id outside it is dropped from its bag."""

    title = "one row per known id, found by vocabulary; unknown ids are dropped"

    def physical_tables(
        self,
        table: TableSpec,
        readers: tuple[FeatureSpec, ...],
        vocabularies: Mapping[str, Vocabulary],
    ) -> tuple[PhysicalTable, ...]:
        """One array of as many rows as the vocabulary knows ids, at least one."""
        rows = max(1, vocabularies[readers[0].name].size)
        int8 = table.serve_dtype == "int8"
        return (PhysicalTable(table.name, rows, table.width, table.init, int8),)

    def reads(
        self, table: TableSpec, feature: FeatureSpec, vocabularies: Mapping[str, Vocabulary]
    ) -> tuple[Read, ...]:
        """One read per id."""
        address = VocabularyAddress(vocabularies[feature.name])
        return (Read(feature.name, 0, table.name, address),)

    def combine(self, table: TableSpec, feature: FeatureSpec) -> nn.Module:  # noqa: ARG002 - one protocol
        """The row itself."""
        return nn.Identity()

    def width(self, table: TableSpec, feature: FeatureSpec) -> int:  # noqa: ARG002 - one protocol
        """The row's width."""
        return table.width
