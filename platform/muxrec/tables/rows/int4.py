"""``int4``: sixteen levels per group."""

from __future__ import annotations

from muxrec.tables.rows.packed import PackedRows


class Int4Rows(PackedRows):
    """Codes of 4 bits; at width 32 a row takes 20 bytes, 0.156 of its fp32 ones."""

    bits = 4
