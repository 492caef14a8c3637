"""``memcom``: a hashed row times a number of the id's own."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import HashAddress, IndexAddress
from muxrec.tables.methods.dealing import dealt_rows
from muxrec.tables.methods.formats import few_numbers
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read, shrinks


class Memcom(Method):
    """Ids that share a row are told apart by a factor, and with ``bias`` by a number added."""

    title = "a hashed row times one number of each known id's own"
    source = "Pansare et al., MLSys 2022"

    def lower(self, declared: Declared) -> Lowered:
        """A hashed array of the reader's share of the rows, and one or two numbers per id."""
        return lower_each(declared, partial(_multiplied, rows=dealt_rows(declared)))


def _multiplied(declared: Declared, reader: FeatureSpec, *, rows: dict[str, int]) -> Lowered | None:
    words, width, has_bias = declared.known(reader), declared.table.width, declared.whole("bias")
    mine = rows[reader.name]
    if not shrinks(declared, reader, mine * width + words.size * (1 + has_bias)):
        return None
    tables = [declared.physical(declared.name_of(reader), mine, width)]
    for part, center in [("factor", 1.0), ("bias", 0.0)][: 1 + has_bias]:
        changes = {"init": 0.0, "center": center, **few_numbers(declared)}
        name = declared.name_of(reader, part)
        tables.append(declared.physical(name, words.size, 1, **changes))
    addresses = [HashAddress(probe_seed(reader.name, 0)), IndexAddress(), IndexAddress()]
    return Lowered(
        tuple(tables),
        tuple(
            Read(reader.name, at, table.name, address)
            for at, (table, address) in enumerate(zip(tables, addresses, strict=False))
        ),
        widths={reader.name: width},
        combines={reader.name: Scaled(width, has_bias=bool(has_bias))},
        per_id=frozenset([reader.name]),
        known={reader.name: words},
    )


class Scaled(nn.Module):
    """A row times a number, plus another one where there is a bias.

    Args:
        width: Numbers per row.
        has_bias: Whether a bias follows the factor.
    """

    def __init__(self, width: int, *, has_bias: bool) -> None:
        super().__init__()
        self.width, self.has_bias = width, has_bias

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Row, factor and bias side by side to vectors ``[N, width]``."""
        scaled = rows[:, : self.width] * rows[:, self.width : self.width + 1]
        return scaled + rows[:, self.width + 1 :] if self.has_bias else scaled
