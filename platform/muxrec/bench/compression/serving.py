"""Trained tables as they are served: frozen, and read back from the format of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch

from muxrec.errors import RecipeError, TrainingError
from muxrec.spec.features import FeatureSpec, ServeFormat, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.budget import solve_budgets
from muxrec.tables.build import Tables, tables_of
from muxrec.tables.held import HeldTable
from muxrec.tables.lowering import Lowering, assemble, lower
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import freeze, keep_maps, places_of, whole_rows


@torch.no_grad()
def served_tables(frozen: Lowering) -> ReferenceTables:
    """Tables of :func:`frozen_tables` whose rows are the numbers that the served codes stand for.

    Raises:
        TrainingError: A format cannot hold the trained rows.
    """
    served = cast(ReferenceTables, tables_of(frozen, engine="reference"))
    for held in served.table_groups():
        if not held.is_served_exactly:
            held.load(replace(held.local(), weight=_rounded(held)))
    return served


def frozen_tables(
    tables: Tables, *, table: str | None = None, serve: ServeFormat = "fp32"
) -> Lowering:
    """The served form of trained tables.

    Args:
        tables: Tables of one process at the end of training.
        table: A declared table that is served in another format than it declares; None for none.
        serve: That format.
    """
    source = tables if table is None else _declared_as(tables, table, serve)
    return freeze(source, whole_rows(source))


def only(lowering: Lowering, table: str) -> Lowering:
    """The part of a lowering that is the declared table ``table``."""
    names = [each.table.name for each in lowering.declared]
    declared, lowered = lowering.declared[names.index(table)], lowering.lowered[names.index(table)]
    part = assemble(declared.readers, (declared,), (lowered,), lowering.values)
    own = {each.name for each in lowered.tables}
    integers = {name: rows for name, rows in lowering.integers.items() if name in own}
    return replace(part, integers=integers)


def check_format(
    features: tuple[FeatureSpec, ...], table: TableSpec, vocabularies: Mapping[str, Vocabulary]
) -> None:
    """Refuse a format in which the table's method serves none of its rows.

    Args:
        features: Features, some of which read the table.
        table: The table as declared; its budget may be unsolved.
        vocabularies: Known ids by feature.

    Raises:
        RecipeError: It does not, or its budget cannot be met.
    """
    (sized,) = solve_budgets(features, (table,), vocabularies)
    readers = tuple(f for f in features if f.is_sparse and f.table == table.name)
    method = METHODS[table.method]
    last = len(method.stages_of(sized)) - 1
    served = method.served_shape(Declared(sized, readers, vocabularies, last)).tables
    if all(physical.serve != table.serve_dtype for physical in served):
        kinds = ", ".join(sorted({physical.serve for physical in served}))
        raise RecipeError(
            f"{table.method} serves no rows as {table.serve_dtype} here, but as {kinds}: leave "
            f"out :{table.serve_dtype}"
        )


def _declared_as(tables: Tables, table: str, serve: ServeFormat) -> Tables:
    """The same trained tables, declared with another served format."""
    old = tables.lowering
    specs = tuple(
        replace(each.table, serve_dtype=serve) if each.table.name == table else each.table
        for each in old.declared
    )
    words = {name: known for each in old.declared for name, known in each.vocabularies.items()}
    again = lower(old.features, specs, words, places=places_of(old), seed=old.declared[0].seed)
    copied = cast(Tables, tables_of(again, engine="reference"))
    copied.load_table_state(tables.export_state())
    keep_maps(copied, tables)
    return copied


def _rounded(held: HeldTable) -> torch.Tensor:
    try:
        return held.served().dense()
    except ValueError as error:
        table = held.group.table
        raise TrainingError(f"{table.name} cannot be served as {table.serve}: {error}") from error
