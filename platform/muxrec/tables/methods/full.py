"""``full``: one row per known id, no collisions."""

from __future__ import annotations

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress
from muxrec.tables.methods.protocol import Declared, Lowered, Method, PhysicalTable, Read


class Full(Method):
    """A row for every id of the training data; an id outside it is dropped from its bag."""

    title = "one row per known id, found by vocabulary; unknown ids are dropped"
    source = "the common baseline"

    def lower(self, declared: Declared) -> Lowered:
        """One array per reader, of as many rows as its vocabulary knows ids, at least one."""
        return lower_full(declared, declared.readers)


def lower_full(declared: Declared, readers: tuple[FeatureSpec, ...], **changes: object) -> Lowered:
    """A full table for each of ``readers``; methods that would grow a small feature use it too."""
    tables = tuple(full_table(declared, reader, **changes) for reader in readers)
    reads = tuple(
        Read(reader.name, 0, table.name, IndexAddress())
        for reader, table in zip(readers, tables, strict=True)
    )
    return Lowered(
        tables,
        reads,
        widths={reader.name: declared.table.width for reader in readers},
        known={reader.name: declared.known(reader) for reader in readers},
    )


def full_table(declared: Declared, reader: FeatureSpec, **changes: object) -> PhysicalTable:
    """The physical table with a row for each of the reader's known ids."""
    rows = max(1, declared.known(reader).size)
    return declared.physical(declared.name_of(reader), rows, declared.table.width, **changes)
