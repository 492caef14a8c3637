"""``alpt``: a full table of bytes that learns a step size per row."""

from __future__ import annotations

from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.integers import lower_integers
from muxrec.tables.methods.protocol import Declared, Lowered, Method


class Alpt(Method):
    """Adaptive low-precision training; see ``tables.alpt.AlptTable``."""

    title = "a byte per number and a learned step size per row, in training too"
    source = "Li et al., AAAI 2023"

    def lower(self, declared: Declared) -> Lowered:
        """One array of int8 per reader; floats where a number and a step size would be larger."""
        if declared.table.width == 1:
            return lower_full(declared, declared.readers)
        return lower_integers(
            declared, storage="alpt", serve="int8", scale_lr=declared.option("scale_lr")
        )
