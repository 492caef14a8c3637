"""``int8``: a full table of a byte per number, trained as such."""

from __future__ import annotations

from muxrec.tables.methods.integers import lower_integers
from muxrec.tables.methods.protocol import Declared, Lowered, Method


class Int8(Method):
    """Low-precision training: one constant step size; see ``tables.integer.IntegerTable``."""

    title = "a byte per number, in training too; updates are rounded at random"
    source = "Xu et al., SIGMOD 2021"

    def lower(self, declared: Declared) -> Lowered:
        """One array of int8 per reader."""
        return lower_integers(declared, storage="int8", serve="int8")
