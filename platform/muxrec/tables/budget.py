"""Budgets of bytes become sizes: rows, ranks, widths, shares.

A table that declares ``budget`` has one free number, which the solver sets so that the served
bytes, without the dictionary of ids, are as many as possible and within the budget. The bytes are
those of the method's own lowering, so every map, code and parameter is in them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from muxrec.errors import MuxrecError, RecipeError
from muxrec.log import event
from muxrec.spec.budget import parse_budget
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.free_size import Range, largest_within
from muxrec.tables.lowering import Lowering, check_vocabularies
from muxrec.tables.memory import serving_bytes
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import FP32_BYTES, Declared

log = logging.getLogger("muxrec.tables")

MAX_ROWS = 2**31 - 1
TOLERANCE = 0.01
"""A frozen table may be this share above its budget: clusters are found, not chosen."""


def solve_budgets(
    features: tuple[FeatureSpec, ...],
    tables: tuple[TableSpec, ...],
    vocabularies: Mapping[str, Vocabulary],
    *,
    is_logged: bool = True,
) -> tuple[TableSpec, ...]:
    """The tables with sizes in place of budgets.

    Args:
        features: Declared features.
        tables: Declared tables; those without a budget or without a reader stay as they are.
        vocabularies: Feature name -> known ids with their counts, for the readers of tables that
            work on known ids, and of all tables whose budget is a share of the full tables.
        is_logged: Whether requested and real bytes are logged.

    Returns:
        The tables in the same order. A solved one has no budget and its rows or option set; a
        method without a size of its own is checked and loses its budget, or, where its size is
        found in training, keeps none and is checked by :func:`check_frozen`.

    Raises:
        RecipeError: No size of a table is within its budget, or a vocabulary is missing.
    """
    solved = []
    for table in tables:
        readers = tuple(f for f in features if f.is_sparse and f.table == table.name)
        if table.budget is None or not readers:
            solved.append(table)
            continue
        filled = fill_budget(table, readers, vocabularies)
        if is_logged:
            _log_filled(table, filled)
        solved.append(filled.table)
    return tuple(solved)


@dataclass(frozen=True)
class Filled:
    """A table whose budget became a size.

    Attributes:
        table: The table, sized.
        budget_bytes: What the budget allows.
        served_bytes: What the size takes; None where training finds the size.
    """

    table: TableSpec
    budget_bytes: int
    served_bytes: int | None


def fill_budget(
    table: TableSpec, readers: tuple[FeatureSpec, ...], vocabularies: Mapping[str, Vocabulary]
) -> Filled:
    """The largest size of ``table``, which declares a budget, that is within it.

    Raises:
        RecipeError: See :func:`solve_budgets`.
    """
    check_vocabularies(table, readers, vocabularies)
    budget, method = budget_bytes(table, readers, vocabularies), METHODS[table.method]
    if METHOD_SPECS[table.method].free is not None:
        measure = cache(lambda value: served_bytes(_sized(table, value), readers, vocabularies))
        best = largest_within(measure, budget, _range_of(table))
        if best.value is None:
            raise RecipeError(_impossible(table, best.size))
        return Filled(_sized(table, best.value), budget, best.size)
    sized = replace(table, budget=None)
    if len(method.stages_of(table)) > 1:
        return Filled(sized, budget, None)
    found = served_bytes(sized, readers, vocabularies)
    if found > budget:
        raise RecipeError(_impossible(table, found))
    return Filled(sized, budget, found)


def _log_filled(table: TableSpec, filled: Filled) -> None:
    free, size = METHOD_SPECS[table.method].free, {}
    if free is not None:
        rows, option = filled.table.rows, filled.table.options.get(free)
        size = {free: rows if free == "rows" else option}
    found = "after training" if filled.served_bytes is None else filled.served_bytes
    log.info(
        event(
            "budget",
            table=table.name,
            method=table.method,
            budget=table.budget,
            budget_bytes=filled.budget_bytes,
            served_bytes=found,
            **size,
        )
    )


def budget_bytes(
    table: TableSpec, readers: tuple[FeatureSpec, ...], vocabularies: Mapping[str, Vocabulary]
) -> int:
    """Bytes that ``table``, which declares a budget, may take.

    A share refers to full fp32 tables of its readers, with vectors as wide as they are now.

    Raises:
        RecipeError: It is a share and the ids of a reader are not known.
    """
    budget = parse_budget(table.budget or "")
    if not budget.is_share:
        return budget.bytes_of(0)
    if missing := [reader.name for reader in readers if reader.name not in vocabularies]:
        raise RecipeError(
            f"tables.{table.name}.budget {table.budget} is a share of full tables, for which the "
            f"ids of {', '.join(missing)} must be known: give it in bytes, e.g. 2MB"
        )
    probes = {r.name: r.probes if METHOD_SPECS[table.method].has_probes else 1 for r in readers}
    numbers = sum(probes[r.name] * table.width * vocabularies[r.name].size for r in readers)
    return budget.bytes_of(FP32_BYTES * numbers)


def served_bytes(
    table: TableSpec, readers: tuple[FeatureSpec, ...], vocabularies: Mapping[str, Vocabulary]
) -> int:
    """Bytes of a sized table when it is served, without the dictionary of ids, from shapes."""
    method = METHODS[table.method]
    last = len(method.stages_of(table)) - 1
    shape = method.served_shape(Declared(table, readers, vocabularies, last))
    return serving_bytes(shape).limited


def check_frozen(frozen: Lowering, tables: tuple[TableSpec, ...]) -> None:
    """Hold the served form of trained tables against their budgets.

    Args:
        frozen: Output of ``tables.staging.freeze``.
        tables: The tables as declared, before :func:`solve_budgets`.

    Raises:
        MuxrecError: A table is more than 1 % above its budget.
    """
    budgets = {table.name: table for table in tables if table.budget is not None}
    for declared, lowered in zip(frozen.declared, frozen.lowered, strict=True):
        table = budgets.get(declared.table.name)
        if table is None:
            continue
        allowed = budget_bytes(table, declared.readers, declared.vocabularies)
        found = serving_bytes(lowered).limited
        log.info(event("served", table=table.name, budget_bytes=allowed, served_bytes=found))
        if found > allowed * (1 + TOLERANCE):
            raise MuxrecError(
                f"tables.{table.name}.budget {table.budget} ({_shown(allowed)}): trained, "
                f"{table.method} takes {_shown(found)}: {_remedy(table)}"
            )


def _sized(table: TableSpec, value: float) -> TableSpec:
    free = METHOD_SPECS[table.method].free
    if free is None or free == "rows":
        return replace(table, budget=None, rows=int(value))
    return replace(table, budget=None, options={**table.options, free: value})


def _range_of(table: TableSpec) -> Range:
    spec = METHOD_SPECS[table.method]
    if spec.takes_rows:
        # A flat array that is read anywhere has fewer than 2**31 numbers, not rows.
        block = int(table.option("block")) if "block" in spec.options else 1
        return Range(1, MAX_ROWS // block, is_whole=True)
    option = spec.options[spec.free or ""]
    return Range(option.low, option.high, is_whole=option.is_whole)


def _impossible(table: TableSpec, least: int) -> str:
    return (
        f"tables.{table.name}.budget {table.budget}: {table.method} cannot go below "
        f"{_shown(least)} here: {_remedy(table)}"
    )


def _remedy(table: TableSpec) -> str:
    return "raise it" if table.method == "unified" else "raise it or use unified"


def _shown(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
