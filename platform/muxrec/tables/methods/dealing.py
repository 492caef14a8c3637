"""How the declared rows are shared out to readers with arrays of their own."""

from __future__ import annotations

from muxrec.tables.methods.protocol import Declared


def dealt_rows(declared: Declared) -> dict[str, int]:
    """Rows of each reader: in proportion to its known ids, at least one; a single one has all."""
    readers, total = declared.readers, declared.table.rows or 1
    if len(readers) == 1:
        return {readers[0].name: total}
    sizes = {reader.name: declared.known(reader).size for reader in readers}
    whole = max(1, sum(sizes.values()))
    return {name: max(1, total * size // whole) for name, size in sizes.items()}
