"""``mde``: mixed dimensions, fewer numbers per id the more ids a feature has."""

from __future__ import annotations

import math

from muxrec.tables.methods.projection import lower_projected
from muxrec.tables.methods.protocol import Declared, Lowered, Method


class MixedDimension(Method):
    """Rows of n_f ** -alpha times a constant numbers, projected to the width.

    The constant gives the feature with the fewest ids the whole width. Widths depend on the
    smallest reader, so a new feature that is smaller than all others widens them.
    """

    title = "rows as narrow as a feature has many ids, widened by one linear map per feature"
    source = "Ginart et al., ISIT 2021 (arXiv 1909.11810)"

    def lower(self, declared: Declared) -> Lowered:
        """One array and, where it is narrower than the vector, one projection per reader."""
        sizes = {reader.name: declared.known(reader).size for reader in declared.readers}
        least, width, alpha = min(sizes.values()), declared.table.width, declared.option("alpha")
        dims = {name: mixed_dim(size, least, width, alpha) for name, size in sizes.items()}
        return lower_projected(declared, dims)


def mixed_dim(size: int, least: int, width: int, alpha: float) -> int:
    """Numbers per row of a feature with ``size`` ids: ``width``, or a power of two below it.

    Args:
        size: The feature's ids.
        least: Ids of the feature that has the fewest.
        width: Numbers per vector, those of the smallest feature's rows.
        alpha: How fast rows narrow, at least 0.
    """
    halvings = alpha * math.log2(max(1, size) / max(1, least))
    if halvings < 0.5:  # A width that is no power of two is kept as it is.
        return width
    return min(width, 2 ** max(0, round(math.log2(width) - halvings)))
