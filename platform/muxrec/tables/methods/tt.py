"""``tt``: a table as a train of three small tensors."""

from __future__ import annotations

import math

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import DigitAddress
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read, shrinks

FLOOR = 0.5
"""Numbers of a core start with at least this share of the largest one: a product of three numbers
of which some are near 0 is peaked at 0, unlike the rows that it stands for."""


class TensorTrain(Method):
    """Each digit of an id's index picks a slice of one core; their product is its vector."""

    title = "three small tables, found by the digits of an id's index and multiplied as matrices"
    source = "Yin et al., MLSys 2021"

    def lower(self, declared: Declared) -> Lowered:
        """Three arrays per reader."""
        return lower_each(declared, _cores)


def _cores(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    words, width, rank = declared.known(reader), declared.table.width, declared.whole("rank")
    bases, module = digit_bases(words.size), Chain(three_factors(width), rank)
    numbers = sum(base * core for base, core in zip(bases, module.widths, strict=True))
    if not shrinks(declared, reader, numbers):
        return None
    largest = core_init(declared.table.init, rank)
    tables = tuple(
        declared.physical(
            declared.name_of(reader, f"core{at}"), base, core, init=largest, floor=FLOOR * largest
        )
        for at, (base, core) in enumerate(zip(bases, module.widths, strict=True))
    )
    _, middle, low = bases
    digits = (DigitAddress(middle * low), DigitAddress(low, middle), DigitAddress(1, low))
    return Lowered(
        tables,
        tuple(
            Read(reader.name, at, table.name, digit)
            for at, (table, digit) in enumerate(zip(tables, digits, strict=True))
        ),
        widths={reader.name: width},
        combines={reader.name: module},
        per_id=frozenset([reader.name]),
        known={reader.name: words},
    )


class Chain(nn.Module):
    """The product of three matrices per id.

    Args:
        factors: The vector's width as a product of three.
        rank: Inner width of the products.
    """

    def __init__(self, factors: tuple[int, int, int], rank: int) -> None:
        super().__init__()
        self.factors, self.rank = factors, rank
        first, second, third = factors
        self.widths = [first * rank, rank * second * rank, rank * third]

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Slices of the cores side by side, ``[N, sum of widths]``, to vectors ``[N, width]``."""
        (first, second, third), rank = self.factors, self.rank
        left, middle, right = rows.split(self.widths, dim=1)
        left = left.unflatten(1, (first, rank)) @ middle.unflatten(1, (rank, second * rank))
        left = left.unflatten(2, (second, rank)).flatten(1, 2)
        return (left @ right.unflatten(1, (rank, third))).flatten(1)


def digit_bases(size: int) -> tuple[int, int, int]:
    """Bases of three digits, highest first, that can write ``size`` numbers, as equal as can be."""
    low = next(base for base in range(1, size + 2) if base**3 >= size)
    middle = max(1, math.isqrt(max(0, -(-size // low) - 1)) + 1)
    return max(1, -(-size // (low * middle))), middle, low


def three_factors(width: int) -> tuple[int, int, int]:
    """``width`` as a product of three rising numbers of the least sum: 16 is 2 x 2 x 4."""
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    triples = (
        (first, second, width // (first * second))
        for first in divisors
        for second in divisors
        if width % (first * second) == 0 and first <= second <= width // (first * second)
    )
    return min(triples, key=sum)


def core_init(init: float, rank: int) -> float:
    """Largest first number of the cores, for vectors with the variance of ``[-init, init]``.

    A vector's number is the sum of rank ** 2 products of three, so its variance is rank ** 2 times
    the cube of the cores' mean square, which is ``largest ** 2 * (1 + f + f ** 2) / 3`` for numbers
    between ``f * largest`` and ``largest``.
    """
    square = (init**2 / 3 / rank**2) ** (1 / 3)
    return math.sqrt(3 * square / (1 + FLOOR + FLOOR**2))
