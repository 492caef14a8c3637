"""``dedup``: blocks of nearly equal rows are stored once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import MapAddress
from muxrec.tables.methods.blocks import alike_blocks, merge_nearest
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.full import lower_full
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

SHARE = 1
"""Number of the stage in which blocks share rows."""


class Dedup(Method):
    """A full table trains first; then its blocks that are alike become one, and training goes on.

    Blocks are ``block`` rows in the order of frequency, found by hashing as published. That alone
    may keep too many blocks for a budget, so clusters of blocks go on merging, the nearest first,
    until at most the share ``kept`` of them is left. Merged blocks start from their mean.
    """

    title = "a full table whose blocks of like rows are stored once, after a first part of training"
    source = "Zhou et al., VLDB 2022"
    stages = (Stage("train", 0.5), Stage("fine-tune", 0.5))

    def lower(self, declared: Declared) -> Lowered:
        """Full tables, and then one block of rows per cluster with a map of blocks."""
        if declared.stage < SHARE:
            return lower_full(declared, declared.readers)
        return lower_each(declared, _shared)

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """Maps of blocks and the mean rows of the merged ones."""
        del combines, evaluate
        carried, values = {}, dict(rows)
        for reader in declared.readers:
            name = declared.name_of(reader)
            if _kept_blocks(declared, reader):
                home, kept = merged_blocks(declared, reader, rows[name])
                carried[_key(reader)] = smallest_integers(home)
                values[name] = kept
        return Advanced(carried, values)

    def served_shape(self, declared: Declared) -> Lowered:
        """As many blocks as may be kept."""
        return lower_each(declared, partial(_shared, is_planned=True))


def merged_blocks(declared: Declared, reader: FeatureSpec, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Cluster of each block, int64 ``[K]``, and the rows of the clusters ``[clusters * b, d]``."""
    size, width = declared.whole("block"), rows.shape[1]
    missing = -len(rows) % size
    blocks = F.pad(rows, (0, 0, 0, missing), value=torch.nan).view(-1, size * width)
    generator = generator_of(declared, reader)
    # Hashing needs buckets of some width; numbers that must be equal are so within this.
    distance = max(declared.option("distance"), 1e-9)
    _, home = alike_blocks(blocks, distance=distance, generator=generator).unique(
        return_inverse=True
    )
    means, sizes = block_means(blocks, home)
    again = merge_nearest(means, sizes, _kept_blocks(declared, reader), generator)
    home = again[home]
    return home, block_means(blocks, home)[0].view(-1, width)


def block_means(blocks: Tensor, home: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each cluster's numbers, without those that are missing, and its size ``[C]``."""
    count = int(home.max()) + 1
    sums = torch.zeros(count, blocks.shape[1]).index_add_(0, home, blocks.nan_to_num())
    present = torch.zeros_like(sums).index_add_(0, home, (~blocks.isnan()).float())
    return sums / present.clamp(min=1), torch.bincount(home, minlength=count).float()


def _kept_blocks(declared: Declared, reader: FeatureSpec) -> int:
    """Most blocks of a reader that are kept; 0 where sharing them is no gain."""
    size, known = declared.whole("block"), declared.known(reader).size
    blocks = -(-known // size)
    kept = max(1, int(declared.option("kept") * blocks))
    numbers, mapped = kept * size * declared.table.width, pointer_bytes(kept) * blocks
    return kept if shrinks(declared, reader, numbers, extra_bytes=mapped) else 0


def _shared(declared: Declared, reader: FeatureSpec, *, is_planned: bool = False) -> Lowered | None:
    most, size = _kept_blocks(declared, reader), declared.whole("block")
    if not most:
        return None
    words = declared.known(reader)
    if is_planned:
        home = smallest_integers(torch.arange(-(-words.size // size)).clamp(max=most - 1))
    else:
        home = declared.carried[_key(reader)]
    rows = (int(home.max()) + 1) * size
    table = declared.physical(declared.name_of(reader), rows, declared.table.width)
    return Lowered(
        (table,),
        (Read(reader.name, 0, table.name, MapAddress(home, block=size)),),
        widths={reader.name: declared.table.width},
        known={reader.name: words},
    )


def _key(reader: FeatureSpec) -> str:
    return f"{reader.name}.blocks"
