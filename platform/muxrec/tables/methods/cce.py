"""``cce``: hashed pieces of vectors, clustered again and again while they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import probe_seed
from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.methods.adapt import Sum
from muxrec.tables.methods.addresses import Address, MapAddress
from muxrec.tables.methods.clustering import k_means, largest_divisor, means_of, nearest
from muxrec.tables.methods.dealing import dealt_rows
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.pointers import pointer_bytes, smallest_integers
from muxrec.tables.methods.protocol import (
    Advanced,
    Arrays,
    Declared,
    Evaluate,
    Lowered,
    Method,
    Read,
    Stage,
    shrinks,
)

CLUSTERED = 0.75
"""Share of the training that is over when the last clusters are formed."""


class Cce(Method):
    """A piece of a vector is a row of one table plus a row of another, each half of the rows.

    Both are hashed at first. After each part of the training the pieces are clustered: the id's
    cluster becomes its row in the first table, the row in the second is hashed anew, once per
    clustering, and starts as the mean of what the clusters leave over. The pointers at clusters are
    counted; a hash takes no bytes. ``columns`` is lowered to a divisor of the width.
    """

    title = "pieces of vectors from two small tables, whose rows are found again by clustering"
    source = "Tsang and Ahle, NeurIPS 2023"

    def stages_of(self, table: TableSpec) -> tuple[Stage, ...]:
        """One part of the training before each clustering, and one after the last."""
        rounds = int(table.option("rounds"))
        if not rounds:
            return (Stage("train"),)
        parts = [Stage(f"part {at + 1}", CLUSTERED / rounds) for at in range(rounds)]
        return (*parts, Stage("settle", 1 - CLUSTERED))

    def lower(self, declared: Declared) -> Lowered:
        """Two arrays per reader, with as many reads of each as there are columns."""
        pointers = {reader.name: declared.carried.get(_key(reader)) for reader in declared.readers}
        return lower_each(
            declared, partial(_pieces, rows=dealt_rows(declared), pointers=pointers.get)
        )

    def served_shape(self, declared: Declared) -> Lowered:
        """The same arrays, with pointers where there is a clustering."""

        def placeholder(name: str) -> Tensor | None:
            if not declared.whole("rounds"):
                return None
            half = _half(dealt_rows(declared)[name])
            reader = next(reader for reader in declared.readers if reader.name == name)
            shape = declared.known(reader).size, _columns(declared)
            return smallest_integers(torch.full(shape, half - 1))

        return lower_each(
            declared, partial(_pieces, rows=dealt_rows(declared), pointers=placeholder)
        )

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """New pointers and rows that stand for the vectors as they are now."""
        del combines, evaluate
        lowered, carried, values = self.lower(declared), {}, dict(rows)
        for reader in declared.readers:
            if declared.name_of(reader, "cluster") in rows:
                homes, clusters, rest = clustered(declared, reader, lowered, rows)
                carried[_key(reader)] = smallest_integers(homes)
                values[declared.name_of(reader, "cluster")] = clusters
                values[declared.name_of(reader, "rest")] = rest
        return Advanced(carried, values)


class SliceHash(Address):
    """A hashed row of a slice of a table.

    Args:
        seed: Signed 64-bit seed.
        rows: Rows of the slice.
        offset: Its first row.
    """

    def __init__(self, seed: int, *, rows: int, offset: int) -> None:
        super().__init__()
        self.seed, self.rows, self.offset = seed, rows, offset

    @property
    def fingerprint(self) -> str:
        """Seed and slice."""
        return f"slice {self.seed} {self.rows} {self.offset}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Hashed rows."""
        return hash_rows(ids, self.seed, self.rows) + self.offset


def clustered(
    declared: Declared, reader: FeatureSpec, lowered: Lowered, rows: Arrays
) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster of each id and column ``[n, C]``, and rows of both tables ``[C * half, d / C]``."""
    generator = generator_of(declared, reader, f"clusters {declared.stage}")
    columns, half = _columns(declared), _half(dealt_rows(declared)[reader.name])
    ids = torch.from_numpy(declared.known(reader).ids())
    index = torch.arange(len(ids))
    read = [
        rows[read.table][read.address(ids, index, len(rows[read.table]))]
        for read in lowered.reads
        if read.feature == reader.name
    ]
    homes, clusters, rests = [], [], []
    for column in range(columns):
        pieces = read[column] + read[columns + column]
        found = k_means(pieces, half, generator=generator)
        home = nearest(pieces, found)
        found = means_of(pieces, home, found)
        seed = _rest_seed(declared, reader, column, declared.stage + 1)
        rest = hash_rows(ids, seed, half)
        homes.append(home)
        clusters.append(found)
        rests.append(means_of(pieces - found[home], rest, torch.zeros_like(found)))
    return torch.stack(homes, dim=1), torch.cat(clusters), torch.cat(rests)


def _pieces(
    declared: Declared,
    reader: FeatureSpec,
    *,
    rows: Mapping[str, int],
    pointers: Callable[[str], Tensor | None],
) -> Lowered | None:
    words, width, columns = declared.known(reader), declared.table.width, _columns(declared)
    half = _half(rows[reader.name])
    pointed = words.size * columns * pointer_bytes(half) if declared.whole("rounds") else 0
    if not shrinks(declared, reader, 2 * half * width, extra_bytes=pointed):
        return None
    clusters, rest = (
        declared.physical(declared.name_of(reader, part), columns * half, width // columns)
        for part in ("cluster", "rest")
    )
    known = pointers(reader.name)
    reads = []
    for at in range(columns):
        if known is None:
            first = SliceHash(probe_seed(reader.name, at), rows=half, offset=at * half)
        else:
            first = MapAddress(known[:, at].contiguous(), offset=at * half)
        reads.append(Read(reader.name, at, clusters.name, first))
    for at in range(columns):
        seed = _rest_seed(declared, reader, at, declared.stage)
        second = SliceHash(seed, rows=half, offset=at * half)
        reads.append(Read(reader.name, columns + at, rest.name, second))
    return Lowered(
        (clusters, rest),
        tuple(reads),
        widths={reader.name: width},
        combines={reader.name: Sum(width)},
        known={reader.name: words},
    )


def _rest_seed(declared: Declared, reader: FeatureSpec, column: int, stage: int) -> int:
    """Seed of the second table's hash, another one after every clustering."""
    return probe_seed(reader.name, (1 + stage) * _columns(declared) + column)


def _columns(declared: Declared) -> int:
    return largest_divisor(declared.table.width, declared.whole("columns"))


def _half(rows: int) -> int:
    """Rows of one column in one of the two tables, so that both have ``rows`` full rows."""
    return max(1, rows // 2)


def _key(reader: FeatureSpec) -> str:
    return f"{reader.name}.pointers"
