"""``unified``: one hashed table that many features share (the multiplexed table)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import probe_seed
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.methods.protocol import HashAddress, PhysicalTable, Read


class Unified:
    """Each probe of each feature hashes with its own seed; the rows are concatenated.

    Source: Coleman et al., Unified Embedding: Battle-Tested Feature Representations for Web-Scale
    ML Systems, NeurIPS 2023.
    """

    title = "one hashed table shared by many features, `probes` rows per id concatenated"

    def physical_tables(
        self,
        table: TableSpec,
        readers: tuple[FeatureSpec, ...],  # noqa: ARG002 - one protocol
        vocabularies: Mapping[str, Vocabulary],  # noqa: ARG002 - one protocol
    ) -> tuple[PhysicalTable, ...]:
        """One array of the declared rows."""
        int8 = table.serve_dtype == "int8"
        return (PhysicalTable(table.name, table.rows or 0, table.width, table.init, int8),)

    def reads(
        self,
        table: TableSpec,
        feature: FeatureSpec,
        vocabularies: Mapping[str, Vocabulary],  # noqa: ARG002 - one protocol
    ) -> tuple[Read, ...]:
        """One read per probe, seeded by the feature's name and the probe's number."""
        return tuple(
            Read(feature.name, probe, table.name, HashAddress(probe_seed(feature.name, probe)))
            for probe in range(feature.probes)
        )

    def combine(self, table: TableSpec, feature: FeatureSpec) -> nn.Module:  # noqa: ARG002 - one protocol
        """The concatenated rows themselves."""
        return nn.Identity()

    def width(self, table: TableSpec, feature: FeatureSpec) -> int:
        """The width of all probes' rows."""
        return feature.probes * table.width
