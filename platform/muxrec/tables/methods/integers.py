"""A full table of integers, held as such in training and served by the same codes."""

from __future__ import annotations

from typing import Any

from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.protocol import Declared, Lowered
from muxrec.tables.rows.groups import MAX_GROUP

BITS = {"fp32": 32, "fp16": 16, "int16": 16, "int8": 8, "int4": 4, "int2": 2}
"""Of a number in each served format."""


def lower_integers(
    declared: Declared, *, storage: str, serve: str, scale_lr: float | None = None
) -> Lowered:
    """A table per reader in ``storage``, served by its own codes.

    A declared format of fewer bits is used instead: the trained rows are rounded once more. One of
    as many or more bits would lose numbers or bytes, and the codes stay.

    Args:
        declared: The table; its option ``scale`` is the first step size.
        storage: ``int8``, ``int16`` or ``alpt``.
        serve: Row format of the same integers.
        scale_lr: Learning rate of a step size per row; None for one constant step size, which is
            served once for as many rows as the format lets share it.
    """
    changes: dict[str, Any] = {}
    table = declared.table
    if BITS[table.serve_dtype] >= BITS[serve]:
        is_shared = scale_lr is None
        group = MAX_GROUP // table.width * table.width if is_shared else 0
        changes = {"serve": serve, "serve_group": group}
    return lower_full(
        declared,
        declared.readers,
        storage=storage,
        scale=declared.option("scale"),
        scale_lr=scale_lr or 0.0,
        seed=declared.seed,
        **changes,
    )
