"""From full tables to the numbers that are kept: what ``deeplight``, ``pep`` and ``autosrh`` share.

A first stage finds out which numbers matter. Then the largest scores over all readers are kept, as
many as the density allows, and the others stay zero: while the rest trains on, every lookup passes
the mask, so a gradient never reaches them. Served are compressed sparse rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress, needed
from muxrec.tables.methods.cutting import cut_above
from muxrec.tables.methods.full import full_table, lower_full
from muxrec.tables.methods.joining import join_lowered
from muxrec.tables.methods.protocol import (
    Advanced,
    Arrays,
    Declared,
    Evaluate,
    Lowered,
    Method,
    PhysicalTable,
    Read,
)
from muxrec.tables.rows import ROW_FORMATS

BITS = 8


class MaskedRows(nn.Module):
    """Rows of which only the kept numbers are left.

    Args:
        bits: Which numbers are kept, uint8 ``[n, ceil(d / 8)]``, of :func:`pack_mask`.
        width: Numbers per row, d.
    """

    bits: Tensor

    def __init__(self, bits: Tensor, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("bits", bits, persistent=False)

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows ``[N, d]`` with zeros where nothing is kept."""
        return rows * unpack_mask(self.bits[needed(index)], self.width).to(rows.dtype)


def pack_mask(mask: Tensor) -> Tensor:
    """Eight flags per byte, uint8 ``[n, ceil(d / 8)]``, of bool ``[n, d]``."""
    return torch.from_numpy(np.packbits(mask.numpy(), axis=1, bitorder="little"))


def unpack_mask(bits: Tensor, width: int) -> Tensor:
    """Flags, int64 0 or 1 ``[n, width]``, of :func:`pack_mask`."""
    places = torch.arange(BITS, device=bits.device)
    return ((bits.to(torch.int64)[:, :, None] >> places) & 1).flatten(1)[:, :width]


class PruningMethod(Method):
    """A search for the numbers that matter, and then training and serving of these alone."""

    def search(self, declared: Declared) -> Lowered:
        """The lowering of the first stage."""
        raise NotImplementedError

    def scores(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """How much each number of a reader's rows matters, ``[n, d]``; comparable over readers."""
        raise NotImplementedError

    def going_on(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor | None:
        """Rows that the second stage begins with, or None for first rows."""
        raise NotImplementedError

    def lower(self, declared: Declared) -> Lowered:
        """The search, and then full tables behind masks."""
        is_last = declared.stage == len(self.stages) - 1
        return lower_masked(declared) if is_last else self.search(declared)

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """Masks of the largest scores over all readers, and the rows under them."""
        del evaluate
        pruned = pruned_readers(declared)
        maps = {reader: combines.get(reader.name) for reader in pruned}
        scores = [self.scores(declared, reader, rows, maps[reader]) for reader in pruned]
        cut = cut_above(scores, kept_numbers(declared))
        masks = [own > cut for own in scores]
        full = {r: rows[declared.name_of(r)] for r in declared.readers if r not in pruned}
        begun = {reader: self.going_on(declared, reader, rows, maps[reader]) for reader in pruned}
        return Advanced(
            {_key(r): pack_mask(mask) for r, mask in zip(pruned, masks, strict=True)},
            {declared.name_of(r): own for r, own in {**full, **begun}.items() if own is not None},
        )

    def freeze(
        self, declared: Declared, rows: Arrays, combines: Mapping[str, nn.Module]
    ) -> Lowered:
        """Compressed sparse rows."""
        del combines
        kept = {}
        for reader in pruned_readers(declared):
            name, bits = declared.name_of(reader), declared.carried[_key(reader)]
            kept[name] = rows[name] * unpack_mask(bits, declared.table.width)
        return _lower_sparse(declared, {**rows, **kept}, set(kept))

    def served_shape(self, declared: Declared) -> Lowered:
        """As many numbers as are kept, wherever they will be."""
        numbers, left = {}, kept_numbers(declared)
        for reader in pruned_readers(declared):
            own = torch.zeros(declared.known(reader).size, declared.table.width, dtype=torch.uint8)
            mine = min(left, own.numel())
            own.view(-1)[:mine] = 1
            numbers[declared.name_of(reader)], left = own, left - mine
        return _lower_sparse(declared, numbers, set(numbers), is_planned=True)


def pruned_readers(declared: Declared) -> tuple[FeatureSpec, ...]:
    """Readers whose sparse rows are smaller than their full ones at the wanted density."""
    width, density = declared.table.width, declared.option("density")
    return tuple(
        reader
        for reader in declared.readers
        if (size := declared.known(reader).size)
        and ROW_FORMATS["csr"].bytes_for(size, width, nonzeros=int(density * size * width))
        < ROW_FORMATS["fp32"].bytes_for(size, width)
    )


def kept_numbers(declared: Declared) -> int:
    """Numbers that all pruned readers keep together."""
    sizes = sum(declared.known(reader).size for reader in pruned_readers(declared))
    return int(declared.option("density") * sizes * declared.table.width)


def lower_masked(declared: Declared) -> Lowered:
    """Full tables, behind masks where there are any."""
    parts, pruned = [], pruned_readers(declared)
    for reader in declared.readers:
        full = lower_full(declared, (reader,))
        if reader in pruned:
            masked = MaskedRows(declared.carried[_key(reader)], declared.table.width)
            per_id = frozenset([reader.name])
            full = replace(full, combines={reader.name: masked}, per_id=per_id)
        parts.append(full)
    return join_lowered(parts)


def _lower_sparse(
    declared: Declared, rows: Arrays, sparse: set[str], *, is_planned: bool = False
) -> Lowered:
    """Full tables that are served as csr where that is smaller, or planned."""
    tables, reads = [], []
    for reader in declared.readers:
        table = full_table(declared, reader)
        if table.name in sparse and (is_planned or _is_smaller(table, rows[table.name])):
            table = replace(table, serve="csr", serve_group=0)
        tables.append(table)
        reads.append(Read(reader.name, 0, table.name, IndexAddress()))
    return Lowered(
        tuple(tables),
        tuple(reads),
        widths={reader.name: declared.table.width for reader in declared.readers},
        known={reader.name: declared.known(reader) for reader in declared.readers},
        values={table.name: rows[table.name] for table in tables if table.name in rows},
    )


def _is_smaller(table: PhysicalTable, rows: Tensor) -> bool:
    """Whether csr takes less than float rows; a reader may have kept more than its share."""
    size, width = rows.shape
    left = int(rows.count_nonzero())
    sparse = ROW_FORMATS["csr"].bytes_for(size, width, nonzeros=left)
    dense = ROW_FORMATS[table.serve].bytes_for(size, width, group=table.serve_group)
    return sparse < dense


def _key(reader: FeatureSpec) -> str:
    return f"{reader.name}.mask"
