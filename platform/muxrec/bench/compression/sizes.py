"""Bytes that a method's tables really take, counted over its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from muxrec.tables.build import Tables

_MOMENTS = 2
"""Adam keeps two numbers per parameter of a method's own networks."""
_MAPS = {"address", "addresses", "vectors"}
"""Names of the modules whose buffers turn ids into rows: seeds, dictionaries, codes, masks."""


@dataclass(frozen=True)
class TableBytes:
    """What the tables cost; the head over them is left out, it is the same for all methods.

    Attributes:
        parameters: Trained numbers: rows, and the weights of a method's own networks.
        training: Bytes while training: parameters, optimiser state, maps.
        serving: Bytes when served as trained: parameters and maps.
        maps: Bytes of what turns ids into rows, part of both: dictionaries of known ids, seeds.
    """

    parameters: int
    training: int
    serving: int
    maps: int


def table_bytes(tables: nn.Module) -> TableBytes:
    """Bytes of ``tables``, which follow :class:`muxrec.tables.build.Tables`."""
    found = cast(Tables, tables)
    held = found.export_state().tables.values()
    weights = [rows.weight for rows in held]
    scales = [rows.scale for rows in held if rows.scale is not None]
    own = list(found.vectors.parameters())
    maps = _bytes(b for name, b in tables.named_buffers() if _MAPS & set(name.split(".")))
    serving = _bytes([*weights, *scales, *own]) + maps
    state = _bytes(rows.momentum for rows in held) + _MOMENTS * _bytes(own)
    numbers = sum(tensor.numel() for tensor in [*weights, *scales, *own])
    return TableBytes(numbers, serving + state, serving, maps)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
