"""Served rows: int8 codes with one scale per row, where a table's declaration asks for it."""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor

from muxrec.model import ItemModel
from muxrec.tables.held import TableGroup
from muxrec.tables.reference import ReferenceTables

LEVELS = 127


class Int8Rows(NamedTuple):
    """A quantised table.

    Attributes:
        codes: int8 ``[R, d]`` in ``[-127, 127]``.
        scales: float32 ``[R]``; row r is ``codes[r] * scales[r]``.
    """

    codes: Tensor
    scales: Tensor

    def rows(self) -> Tensor:
        """The rows that the codes stand for, float32 ``[R, d]``."""
        return self.codes.float() * self.scales[:, None]


def quantise_rows(weight: Tensor) -> Int8Rows:
    """Symmetric int8 codes of float32 rows ``[R, d]``; a row of zeros keeps scale 0.

    The error of a number is at most half a step, ``max(abs(row)) / 254``.
    """
    scales = weight.abs().amax(dim=1) / LEVELS
    steps = torch.where(scales > 0, scales, 1.0)
    codes = torch.round(weight / steps[:, None]).clamp(-LEVELS, LEVELS).to(torch.int8)
    return Int8Rows(codes, scales)


def tables_of(model: ItemModel) -> ReferenceTables:
    """The model's tables.

    Raises:
        TypeError: Another engine holds them; export works on ``load_model``'s reference tables.
    """
    tables = cast(object, model.tables)
    if not isinstance(tables, ReferenceTables):
        raise TypeError(f"export needs ReferenceTables, got {type(tables).__name__}")
    return tables


@torch.no_grad()
def served_model(model: ItemModel) -> ItemModel:
    """The model as it will be served: int8 tables hold the rows that their codes stand for.

    Returns:
        ``model`` itself where no table is declared int8, else a copy.
    """
    if not any(group.group.table.serve == "int8" for group in tables_of(model).table_groups()):
        return model
    served = copy.deepcopy(model)
    for group in tables_of(served).table_groups():
        if group.group.table.serve == "int8":
            weight = cast(TableGroup, group).weight
            weight.copy_(quantise_rows(weight).rows())
    return served
