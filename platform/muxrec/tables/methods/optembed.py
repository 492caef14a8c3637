"""``optembed``: which ids keep a row, and how wide each feature's rows are, is searched."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import Address, IndexAddress, MapAddress
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.evolution import Genes, best_genes
from muxrec.tables.methods.full import full_table, lower_full
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import (
    Advanced,
    Arrays,
    Declared,
    Evaluate,
    Lowered,
    Method,
    Read,
    Stage,
)
from muxrec.tables.methods.row_gates import RowGate

RETRAIN = 1
"""Number of the stage that trains what was found."""


class OptEmbed(Method):
    """Rows of a small absolute sum are dropped and the others are cut to a prefix per feature.

    Thresholds and rows train together, under widths drawn anew for every batch. Then the rows below
    the thresholds are dropped, the best widths are searched on data that is not trained on, and
    what is left trains on from its rows. There is no budget to set: ``sparsity`` decides.

    A map of the rows that are left is counted; where it would outweigh the dropped rows they stay.
    """

    title = "rows below a learned threshold are dropped, the others cut to a searched width"
    source = "Lyu et al., CIKM 2022"
    stages = (Stage("supernet", 0.5), Stage("retrain", 0.5))

    def lower(self, declared: Declared) -> Lowered:
        """Gated full tables, and then the rows and numbers that are left."""
        return lower_each(declared, _found if declared.stage >= RETRAIN else _gated)

    def served_shape(self, declared: Declared) -> Lowered:
        """Full tables: no search makes a table larger."""
        return lower_full(declared, declared.readers)

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """The rows kept, and the widths found by evolution."""
        gates = {
            reader: gate
            for reader in declared.readers
            if isinstance(gate := combines.get(reader.name), RowGate)
        }
        carried, values = {}, dict(rows)
        widths = _searched(declared, list(gates.values()), evaluate)
        for (reader, gate), width in zip(gates.items(), widths, strict=True):
            own = rows[declared.name_of(reader)]
            places, left = kept_rows(own, gate.kept(own), width)
            carried[f"{reader.name}.width"] = torch.tensor([width])
            if places is not None:
                carried[f"{reader.name}.rows"] = places
            values[declared.name_of(reader)] = left
        return Advanced(carried, values)


def kept_rows(rows: Tensor, is_kept: Tensor, width: int) -> tuple[Tensor | None, Tensor]:
    """Place of each id's row, -1 where it is dropped, and the rows left, cut to ``width``.

    The places are int16 or int32 ``[n]``; None where dropping rows takes more than it saves, then
    dropped rows are zeros.
    """
    count = int(is_kept.sum())
    kind = torch.int16 if count <= torch.iinfo(torch.int16).max else torch.int32
    saved = (len(rows) - count) * width * rows.element_size()
    if saved <= len(rows) * kind.itemsize:
        return None, (rows * is_kept[:, None])[:, :width].clone()
    places = torch.where(is_kept, is_kept.cumsum(0) - 1, -1).to(kind)
    return places, rows[is_kept, :width]


def _searched(declared: Declared, gates: list[RowGate], evaluate: Evaluate) -> Genes:
    """Width of each gated reader."""
    if not gates:
        return ()

    def quality(genes: Genes) -> float:
        for gate, width in zip(gates, genes, strict=True):
            gate.prefix.fill_(width)
        return evaluate()

    return best_genes(
        quality,
        features=len(gates),
        width=declared.table.width,
        rounds=declared.whole("rounds"),
        generator=generator_of(declared, declared.readers[0], "evolution"),
    )


def _gated(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    if declared.known(reader).size < 2:
        return None
    gate = RowGate(
        declared.table.width,
        sparsity=declared.option("sparsity"),
        generator=generator_of(declared, reader),
    )
    table = full_table(declared, reader)
    return Lowered(
        (table,),
        (Read(reader.name, 0, table.name, IndexAddress()),),
        widths={reader.name: declared.table.width},
        combines={reader.name: gate},
        per_id=frozenset([reader.name]),
        known={reader.name: declared.known(reader)},
    )


def _found(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    width, words = declared.carried.get(f"{reader.name}.width"), declared.known(reader)
    if width is None:
        return None
    places, inner = declared.carried.get(f"{reader.name}.rows"), int(width)
    address: Address = IndexAddress()
    count = words.size
    if places is not None:
        address, count = MapAddress(places, drops=True), int(places.max()) + 1
    table = declared.physical(declared.name_of(reader), count, inner)
    missing = declared.table.width - inner
    return Lowered(
        (table,),
        (Read(reader.name, 0, table.name, address),),
        widths={reader.name: declared.table.width},
        combines={reader.name: Filled(missing)} if missing else {},
        known={reader.name: words},
    )


class Filled(nn.Module):
    """Pooled rows with zeros after them.

    Args:
        missing: Numbers that the rows lack.
    """

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing

    def forward(self, rows: Tensor) -> Tensor:
        """``[B, w]`` to ``[B, w + missing]``."""
        return F.pad(rows, (0, self.missing))
