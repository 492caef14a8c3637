"""A table whose readers are lowered one by one, each with arrays of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.protocol import Declared, Lowered


def lower_each(
    declared: Declared, compressed: Callable[[Declared, FeatureSpec], Lowered | None]
) -> Lowered:
    """The lowering of all readers.

    Args:
        declared: The table.
        compressed: Gives a reader's compressed form, or None where a full table is no larger; such
            a reader gets the full table.
    """
    return join_lowered(
        [
            compressed(declared, reader) or lower_full(declared, (reader,))
            for reader in declared.readers
        ]
    )


def join_lowered(parts: Sequence[Lowered]) -> Lowered:
    """One lowering of the parts' readers, which share nothing; hooks are not joined."""
    return Lowered(
        tables=tuple(table for part in parts for table in part.tables),
        reads=tuple(read for part in parts for read in part.reads),
        widths={name: width for part in parts for name, width in part.widths.items()},
        combines={name: module for part in parts for name, module in part.combines.items()},
        per_id=frozenset().union(*(part.per_id for part in parts)),
        known={name: words for part in parts for name, words in part.known.items()},
        values={name: rows for part in parts for name, rows in part.values.items()},
    )
