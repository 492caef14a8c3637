"""``narrow``: a full table of few numbers per id, mapped to the width: the honest rival."""

from __future__ import annotations

from muxrec.tables.methods.projection import lower_projected
from muxrec.tables.methods.protocol import Declared, Lowered, Method


class Narrow(Method):
    """Every known id keeps ``dim`` numbers of its own; one projection per feature widens them.

    At equal bytes this is what every other method has to beat. It cannot go below ``1 / width`` of
    the full table.
    """

    title = "a full table of `dim` numbers per id, widened by one linear map per feature"
    source = "Lan et al., ICLR 2020, section 3.1 (factorised embeddings)"

    def lower(self, declared: Declared) -> Lowered:
        """One narrow array and one projection per reader."""
        dim = declared.whole("dim")
        return lower_projected(declared, {reader.name: dim for reader in declared.readers})
