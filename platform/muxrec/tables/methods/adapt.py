"""``adapt``: frequent ids own a row, all others share hashed ones."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import ColdAddress, HashAddress, HotAddress, VocabularyIndex
from muxrec.tables.methods.dealing import dealt_rows
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read, shrinks


class Adapt(Method):
    """The ids seen most often in the training data own rows; an unseen id is one of the others.

    The list of frequent ids is part of the table's bytes: published code leaves its map out. A
    feature that would not shrink has a full table, which drops unseen ids.
    """

    title = "the most frequent ids own rows, all others and unseen ids share hashed ones"
    source = "DeepRec's adaptive embedding, as in Zhang et al., VLDB 2024"

    def lower(self, declared: Declared) -> Lowered:
        """Two arrays per reader, of its share of the rows."""
        return lower_each(declared, partial(_split, rows=dealt_rows(declared)))


def _split(declared: Declared, reader: FeatureSpec, *, rows: dict[str, int]) -> Lowered | None:
    total, width = rows[reader.name], declared.table.width
    frequent = min(int(total * declared.option("hot")), declared.known(reader).size, total - 1)
    words = declared.known(reader).head(frequent)
    listed = words.lookup_bytes if frequent else 0
    if not shrinks(declared, reader, total * width, extra_bytes=listed):
        return None
    seed = probe_seed(reader.name, 0)
    if not frequent:
        table = declared.physical(declared.name_of(reader, "cold"), total, width)
        read = Read(reader.name, 0, table.name, HashAddress(seed))
        return Lowered((table,), (read,), {reader.name: width})
    hot = declared.physical(declared.name_of(reader, "hot"), frequent, width)
    cold = declared.physical(declared.name_of(reader, "cold"), total - frequent, width)
    index = VocabularyIndex(words)
    return Lowered(
        (hot, cold),
        (
            Read(reader.name, 0, hot.name, HotAddress(index)),
            Read(reader.name, 1, cold.name, ColdAddress(index, seed)),
        ),
        widths={reader.name: width},
        combines={reader.name: Sum(width)},
    )


class Sum(nn.Module):
    """Adds the rows of frequent ids and those of all others; every id reads one of the two.

    Args:
        width: Numbers per row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, rows: Tensor) -> Tensor:
        """Two pooled rows side by side ``[B, 2 * width]`` to vectors ``[B, width]``."""
        return rows[:, : self.width] + rows[:, self.width :]
