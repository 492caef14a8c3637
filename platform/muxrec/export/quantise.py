"""Tables as they are served: rows in the format that each table's declaration asks for."""

from __future__ import annotations

import copy
import dataclasses
from typing import cast

import torch

from muxrec.errors import BundleError
from muxrec.model import ItemModel
from muxrec.tables.held import HeldTable
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.rows import ServedRows


def tables_of(model: ItemModel) -> ReferenceTables:
    """The model's tables.

    Raises:
        TypeError: Another engine holds them; export works on ``load_model``'s reference tables.
    """
    tables = cast(object, model.tables)
    if not isinstance(tables, ReferenceTables):
        raise TypeError(f"export needs ReferenceTables, got {type(tables).__name__}")
    return tables


def served_rows(table: HeldTable) -> ServedRows:
    """The rows of ``table`` in its format, an ``nn.Module``.

    Raises:
        BundleError: The format cannot hold them.
    """
    try:
        return table.served()
    except ValueError as error:
        raise BundleError(f"table {table.group.table.name} cannot be served: {error}") from error


def is_quantised(table: HeldTable) -> bool:
    """Whether the served rows of ``table`` differ from the trained ones."""
    return not table.is_served_exactly


@torch.no_grad()
def served_model(model: ItemModel) -> ItemModel:
    """The model as it will be served: tables hold the rows that their codes stand for.

    Returns:
        ``model`` itself where every table's format is exact, else a copy.

    Raises:
        BundleError: A table's format cannot hold its rows.
    """
    if not any(is_quantised(table) for table in tables_of(model).table_groups()):
        return model
    served = copy.deepcopy(model)
    for table in filter(is_quantised, tables_of(served).table_groups()):
        table.load(dataclasses.replace(table.local(), weight=served_rows(table).dense()))
    return served
