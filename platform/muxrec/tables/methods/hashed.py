"""``hashed``: one feature's own hashed table."""

from __future__ import annotations

from muxrec.tables.methods.unified import Unified


class Hashed(Unified):
    """The unified table's arithmetic with one reader; the spec refuses a second one."""

    title = "one hashed table per feature, `probes` rows per id concatenated"
