"""``hash_embedding``: a weighted sum of hashed rows, with weights that are hashed too."""

from __future__ import annotations

import math

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import probe_seed
from muxrec.tables.methods.addresses import HashAddress
from muxrec.tables.methods.formats import few_numbers
from muxrec.tables.methods.protocol import Declared, Lowered, Method, PhysicalTable, Read


class HashEmbedding(Method):
    """``hashes`` rows of a pool that all readers share, times the id's weights, summed."""

    title = "hashed rows of a shared pool summed with weights learned per id"
    source = "Svenstrup et al., NeurIPS 2017"

    def lower(self, declared: Declared) -> Lowered:
        """A pool of rows and an array of weights, both shared by all readers."""
        pool, weights = _tables(declared)
        hashes, names = declared.whole("hashes"), [reader.name for reader in declared.readers]
        reads = (read for reader in declared.readers for read in _reads(reader, pool, weights))
        return Lowered(
            (pool, weights),
            tuple(reads),
            widths=dict.fromkeys(names, declared.table.width),
            combines={name: WeightedSum(hashes, declared.table.width) for name in names},
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
    return [
        Read(reader.name, probe, name, HashAddress(probe_seed(reader.name, probe)))
        for probe, name in enumerate(names)
    ]


class WeightedSum(nn.Module):
    """Rows times their weights, summed.

    Args:
        hashes: Rows per id.
        width: Numbers per row.
    """

    def __init__(self, hashes: int, width: int) -> None:
        super().__init__()
        self.hashes, self.width = hashes, width

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows and weights side by side, ``[N, hashes * (width + 1)]``, to ``[N, width]``."""
        each = rows[:, : self.hashes * self.width].unflatten(1, (self.hashes, self.width))
        return (each * rows[:, self.hashes * self.width :, None]).sum(dim=1)
