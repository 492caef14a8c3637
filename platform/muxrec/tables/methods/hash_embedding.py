"""``hash_embedding``: a weighted sum of hashed rows, with weights that are hashed too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import HashAddress
from muxrec.tables.methods.formats import few_numbers
from muxrec.tables.methods.protocol import Declared, Lowered, Method, PhysicalTable, Read
from muxrec.tables.methods.seeds import seeds_on
from muxrec_kernels.compositional_lookup import multi_hash_lookup

if TYPE_CHECKING:
    from muxrec.tables.addressing import Found


class HashEmbedding(Method):
    """``hashes`` rows of a pool that all readers share, times the id's weights, summed."""

    title = "hashed rows of a shared pool summed with weights learned per id"
    source = "Svenstrup et al., NeurIPS 2017"

    def lower(self, declared: Declared) -> Lowered:
        """A pool of rows and an array of weights, both shared by all readers."""
        pool, weights = _tables(declared)
        names = [reader.name for reader in declared.readers]
        seeds = {reader.name: _seeds(reader, weights.width) for reader in declared.readers}
        reads = (read for reader in declared.readers for read in _reads(reader, pool, weights))
        return Lowered(
            (pool, weights),
            tuple(reads),
            widths=dict.fromkeys(names, declared.table.width),
            combines={name: WeightedSum(seeds[name], declared.table.width) for name in names},
            per_id=frozenset(names),
        )


def _tables(declared: Declared) -> tuple[PhysicalTable, PhysicalTable]:
    """The pool and the weights, of no more numbers together than the declared rows.

    Weights start near 1 and the pool's rows so that their sum has the declared variance.
    """
    table, hashes = declared.table, declared.whole("hashes")
    rows = table.rows or 1
    weight_rows = max(1, int(declared.option("weight_share") * rows * table.width / hashes))
    pool_rows = max(1, rows - -(-weight_rows * hashes // table.width))
    init = table.init / math.sqrt(hashes)
    pool = declared.physical(f"{table.name}.pool", pool_rows, table.width, init=init)
    changes = {"center": 1.0, **few_numbers(declared)}
    return pool, declared.physical(f"{table.name}.weights", weight_rows, hashes, **changes)


def _reads(reader: FeatureSpec, pool: PhysicalTable, weights: PhysicalTable) -> list[Read]:
    """One read per row of the pool and, with a seed of its own, one of the weights."""
    names = [*[pool.name] * weights.width, weights.name]
    seeds = _seeds(reader, weights.width)
    return [
        Read(reader.name, probe, name, HashAddress(seed))
        for probe, (name, seed) in enumerate(zip(names, seeds, strict=True))
    ]


def _seeds(reader: FeatureSpec, hashes: int) -> tuple[int, ...]:
    """Seed of each row of the pool, and that of the weights."""
    return tuple(probe_seed(reader.name, probe) for probe in range(hashes + 1))


class WeightedSum(nn.Module):
    """Rows times their weights, summed.

    Args:
        seeds: Hash seed of each row, and that of the weights.
        width: Numbers per row.
    """

    def __init__(self, seeds: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.seeds, self.hashes, self.width = seeds, len(seeds) - 1, width

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows and weights side by side, ``[N, hashes * (width + 1)]``, to ``[N, width]``."""
        each = rows[:, : self.hashes * self.width].unflatten(1, (self.hashes, self.width))
        return (each * rows[:, self.hashes * self.width :, None]).sum(dim=1)

    def in_one_pass(self, tables: Sequence[Tensor], found: Found, *, pooling: str) -> Tensor:
        """Weighted sums of hashed rows, pooled ``[B, width]``; pool and weights are given."""
        pool, factors = tables
        return multi_hash_lookup(
            pool,
            factors,
            found.ids,
            found.offsets,
            seeds_on(pool.device, self.seeds),
            weights=found.weights,
            pooling=pooling,
        )
