"""``hashed``: one feature's own hashed table."""

from __future__ import annotations

from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import HashAddress
from muxrec.tables.methods.dealing import dealt_rows
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read


class Hashed(Method):
    """The unified table's arithmetic with one array per feature.

    The declared rows are dealt to the readers in proportion to their known ids, at least one each;
    a single reader has them all.
    """

    title = "one hashed table per feature, `probes` rows per id concatenated"
    source = "Weinberger et al., ICML 2009"

    def lower(self, declared: Declared) -> Lowered:
        """One array per reader; one read per probe."""
        table, rows = declared.table, dealt_rows(declared)
        tables = tuple(
            declared.physical(declared.name_of(reader), rows[reader.name], table.width)
            for reader in declared.readers
        )
        reads = tuple(
            Read(reader.name, probe, physical.name, HashAddress(probe_seed(reader.name, probe)))
            for reader, physical in zip(declared.readers, tables, strict=True)
            for probe in range(reader.probes)
        )
        widths = {reader.name: reader.probes * table.width for reader in declared.readers}
        return Lowered(tables, reads, widths)
