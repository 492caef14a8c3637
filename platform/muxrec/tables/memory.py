"""Bytes of tables by purpose, from shapes before anything is built and from real tensors after.

What has no arrays (hash seeds, divisors) counts nothing. The dictionary of known ids stands apart:
it depends on the ids and not on the method, and no budget limits it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, cast

from torch import Tensor, nn

from muxrec.tables.addressing import MappedRows
from muxrec.tables.features import has
from muxrec.tables.methods.addresses import VocabularyIndex
from muxrec.tables.methods.protocol import FP32_BYTES, Lowered, PhysicalTable
from muxrec.tables.optimizer import aligned_width
from muxrec.tables.rows import ROW_FORMATS

if TYPE_CHECKING:
    from muxrec.spec.vocabulary import Vocabulary
    from muxrec.tables.build import Tables
    from muxrec.tables.lowering import Lowering
    from muxrec.tables.reference import ReferenceTables

MOMENTS = 2
"""AdamW keeps two numbers per parameter of a map."""
STORED_BYTES = {"int8": 1, "int16": 2, "alpt": 1}
"""Bytes per number of the storages that are not float32."""


@dataclass(frozen=True)
class _Purposes:
    """Fields of bytes that add up."""

    def __add__(self, other: Self) -> Self:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return type(self)(**sums)

    @property
    def total(self) -> int:
        """Everything."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class ServingBytes(_Purposes):
    """Bytes of tables as they are served.

    Attributes:
        rows: Physical tables in their served formats.
        maps: Arrays that turn ids into rows: codes, pointers, lists of hot ids.
        combine: Parameters and buffers of the maps from rows to vectors.
        dictionary: Known ids of the features whose tables need them.
    """

    rows: int = 0
    maps: int = 0
    combine: int = 0
    dictionary: int = 0

    @property
    def limited(self) -> int:
        """What a budget limits: everything but the dictionary."""
        return self.rows + self.maps + self.combine


@dataclass(frozen=True)
class TrainingBytes(_Purposes):
    """Bytes of tables while they are trained, without gradients and the batch.

    Attributes:
        rows: Physical tables in their storage.
        state: Row-wise Adagrad's number per row.
        maps: As in :class:`ServingBytes`.
        combine: As in :class:`ServingBytes`.
        combine_state: AdamW's moments of the maps' parameters; architecture parameters have none.
        dictionary: As in :class:`ServingBytes`.
    """

    rows: int = 0
    state: int = 0
    maps: int = 0
    combine: int = 0
    combine_state: int = 0
    dictionary: int = 0


def serving_bytes(lowered: Lowered) -> ServingBytes:
    """Bytes of one table's served form, of ``Method.served_shape`` or ``Method.freeze``.

    Where rows are served as ``csr``, ``lowered.values`` say how many numbers are left.
    """
    return ServingBytes(
        sum(_served_rows(table, lowered.values.get(table.name)) for table in lowered.tables),
        _bytes(_map_buffers(read.address for read in lowered.reads)),
        _bytes(_held_numbers(lowered.combines.values())),
        dictionary_bytes(lowered.known.values()),
    )


def serving_of(lowering: Lowering) -> ServingBytes:
    """Bytes of all tables of a frozen lowering, of ``tables.staging.freeze``."""
    return sum((serving_bytes(lowered) for lowered in lowering.lowered), start=ServingBytes())


def _served_rows(table: PhysicalTable, values: Tensor | None) -> int:
    nonzeros = None if values is None else int(values.count_nonzero())
    rows = ROW_FORMATS[table.serve]
    return rows.bytes_for(table.rows, table.width, group=table.serve_group, nonzeros=nonzeros)


def training_bytes(lowered: Lowered, *, is_aligned: bool = True) -> TrainingBytes:
    """Bytes of one table in one stage of its training.

    Args:
        lowered: Output of ``Method.lower``.
        is_aligned: Whether float rows are filled up to a multiple of four numbers, as the torchrec
            engine does and the reference does not.
    """
    combines = list(lowered.combines.values())
    return TrainingBytes(
        sum(stored_bytes(table, is_aligned=is_aligned) for table in lowered.tables),
        FP32_BYTES * sum(table.rows for table in lowered.tables),
        _bytes(_map_buffers(read.address for read in lowered.reads)),
        _bytes(_held_numbers(combines)),
        MOMENTS * _bytes(_with_moments(combines)),
        dictionary_bytes(lowered.known.values()),
    )


def training_of(lowering: Lowering, *, is_aligned: bool = True) -> TrainingBytes:
    """Bytes of all tables of a lowering in training; see :func:`training_bytes`."""
    found = (training_bytes(lowered, is_aligned=is_aligned) for lowered in lowering.lowered)
    return sum(found, start=TrainingBytes())


def stored_bytes(table: PhysicalTable, *, is_aligned: bool) -> int:
    """Bytes of a physical table's rows in their storage, and of their integers' steps.

    Args:
        table: The table.
        is_aligned: See :func:`training_bytes`.
    """
    if table.storage == "fp32":
        width = aligned_width(table.width) if is_aligned else table.width
        return FP32_BYTES * table.rows * width
    steps = FP32_BYTES * (table.rows if table.storage == "alpt" else 1)
    return STORED_BYTES[table.storage] * table.rows * table.width + steps


def dictionary_bytes(known: Iterable[Vocabulary]) -> int:
    """Bytes of what finds the index of known ids."""
    return sum(_bytes(VocabularyIndex(words).buffers()) for words in known)


def measured_serving(tables: ReferenceTables) -> ServingBytes:
    """Bytes of the tensors that are exported: the rows are brought into their formats for it.

    Args:
        tables: Tables of the lowering that ``tables.staging.freeze`` gave.
    """
    formats = [held.served() for held in tables.table_groups()]
    return ServingBytes(
        _bytes(b for each in formats for b in cast(nn.Module, each).buffers()),
        *_measured_maps(tables),
    )


def measured_training(tables: Tables) -> TrainingBytes:
    """Bytes of the tensors of this process; AdamW's moments, which lie elsewhere, are counted."""
    held = list(tables.local_tables().values())
    weights = [part for rows in held for part in (rows.weight, rows.scale) if part is not None]
    maps, combine, dictionary = _measured_maps(cast(Any, tables))
    return TrainingBytes(
        sum(_allocated(tensor) for tensor in weights),
        sum(_allocated(rows.momentum) for rows in held),
        maps,
        combine,
        MOMENTS * _bytes(_with_moments(tables.vectors.maps)),
        dictionary,
    )


def _measured_maps(tables: nn.Module) -> tuple[int, int, int]:
    """Bytes of maps, of combines and of the dictionary."""
    vectors = cast("Tables", tables).vectors
    mapped = [module for module in tables.modules() if isinstance(module, MappedRows)]
    return (
        _bytes(_map_buffers(address for module in mapped for address in module.addresses)),
        _bytes(_held_numbers(vectors.maps)),
        _bytes(vectors.known.buffers()),
    )


def _map_buffers(addresses: Iterable[nn.Module]) -> list[Tensor]:
    """Buffers of addresses, each once however many of them share it."""
    found = {id(buffer): buffer for address in addresses for buffer in address.buffers()}
    return list(found.values())


def _held_numbers(combines: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers of maps, each once."""
    found = {id(t): t for module in combines for t in (*module.parameters(), *module.buffers())}
    return list(found.values())


def _with_moments(combines: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters of maps that AdamW trains."""
    found = {id(p): p for module in combines for p in module.parameters() if p.requires_grad}
    for module in combines:
        if has(module, "architecture"):
            for parameter in cast(Any, module).architecture():
                found.pop(id(parameter), None)
    return list(found.values())


def _allocated(tensor: Tensor) -> int:
    """Bytes that a tensor's rows lie in: a view of the first numbers of each row has gaps."""
    step = tensor.stride(0) if tensor.dim() else 1
    if step == 0:  # One number seen as many.
        return tensor.element_size() * tensor[:1].numel()
    return tensor.element_size() * tensor.shape[0] * step


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
