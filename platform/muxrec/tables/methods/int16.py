"""``int16``: a full table of two bytes per number, trained as such."""

from __future__ import annotations

from muxrec.tables.methods.integers import lower_integers
from muxrec.tables.methods.protocol import Declared, Lowered, Method


class Int16(Method):
    """Low-precision training: one constant step size; see ``tables.integer.IntegerTable``."""

    title = "two bytes per number, in training too; updates are rounded at random"
    source = "Xu et al., SIGMOD 2021"

    def lower(self, declared: Declared) -> Lowered:
        """One array of int16 per reader."""
        return lower_integers(declared, storage="int16", serve="int16")
