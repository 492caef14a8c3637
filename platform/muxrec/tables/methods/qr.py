"""``qr``: a row of quotients times a row of remainders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import DigitAddress, needed
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read, shrinks
from muxrec_kernels.compositional_lookup import quotient_remainder_lookup

if TYPE_CHECKING:
    from muxrec.tables.addressing import Found


class QuotientRemainder(Method):
    """Two small tables, read by the two digits of an id's index; no two ids share both rows.

    Remainder rows start near 1, so that a vector starts as its quotient row: the product of two
    rows near 0 would start with vanishing vectors and gradients.
    """

    title = "two rows per id multiplied, found by quotient and remainder of its index"
    source = "Shi et al., KDD 2020"

    def lower(self, declared: Declared) -> Lowered:
        """Two arrays per reader; one number of buckets for all of them."""
        return lower_each(declared, _composed)


def _composed(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    words, width, buckets = declared.known(reader), declared.table.width, declared.whole("buckets")
    quotients = -(-words.size // buckets)
    if not shrinks(declared, reader, (quotients + buckets) * width):
        return None
    high = declared.physical(declared.name_of(reader, "quotient"), quotients, width)
    low = declared.physical(declared.name_of(reader, "remainder"), buckets, width, center=1.0)
    return Lowered(
        (high, low),
        (
            Read(reader.name, 0, high.name, DigitAddress(buckets)),
            Read(reader.name, 1, low.name, DigitAddress(1, buckets)),
        ),
        widths={reader.name: width},
        combines={reader.name: Product(width)},
        per_id=frozenset([reader.name]),
        known={reader.name: words},
    )


class Product(nn.Module):
    """The product of two rows, number by number.

    Args:
        width: Numbers per row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Two rows side by side ``[N, 2 * width]`` to vectors ``[N, width]``."""
        return rows[:, : self.width] * rows[:, self.width :]

    def in_one_pass(self, tables: Sequence[Tensor], found: Found, *, pooling: str) -> Tensor:
        """Products of the rows of both digits, pooled ``[B, width]``; both tables are given."""
        quotients, remainders = tables
        return quotient_remainder_lookup(
            quotients,
            remainders,
            needed(found.indices),
            found.offsets,
            weights=found.weights,
            pooling=pooling,
        )
