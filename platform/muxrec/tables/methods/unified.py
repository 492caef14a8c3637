"""``unified``: one hashed table that many features share (the multiplexed table)."""

from __future__ import annotations

from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import HashAddress
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read


class Unified(Method):
    """Each probe of each feature hashes with its own seed; the rows are concatenated.

    Source: Coleman et al., Unified Embedding: Battle-Tested Feature Representations for Web-Scale
    ML Systems, NeurIPS 2023.
    """

    title = "one hashed table shared by many features, `probes` rows per id concatenated"
    source = "Coleman et al., NeurIPS 2023"

    def lower(self, declared: Declared) -> Lowered:
        """One array of the declared rows; one read per probe, seeded by feature name and number."""
        table = declared.table
        physical = declared.physical(table.name, table.rows or 1, table.width)
        reads = tuple(
            Read(reader.name, probe, table.name, HashAddress(probe_seed(reader.name, probe)))
            for reader in declared.readers
            for probe in range(reader.probes)
        )
        widths = {reader.name: reader.probes * table.width for reader in declared.readers}
        return Lowered((physical,), reads, widths)
