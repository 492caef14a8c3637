"""Who takes part: a table method, its probes, and the format that its rows are served in."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast, get_args

from muxrec.errors import RecipeError
from muxrec.spec.features import ServeFormat, TableMethod, TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.tables.methods import METHODS

FORMATS = tuple(name for name in get_args(ServeFormat) if name != "csr")
"""Formats that a contestant may name; ``csr`` is chosen by the methods that prune."""
_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:-([1-9][0-9]*))?(?::([a-z0-9]+))?")


@dataclass(frozen=True)
class Contestant:
    """A table method as it takes part.

    Attributes:
        method: A table method.
        probes: Rows per id, side by side; each is ``width / probes`` numbers wide.
        serve: Format of the served rows; budgets, bytes and quality are those of this format.
    """

    method: TableMethod
    probes: int = 1
    serve: ServeFormat = "fp32"

    @property
    def name(self) -> str:
        """``unified-4:int8``: four probes, served as int8; one probe and fp32 are not spelled."""
        probes = f"-{self.probes}" if self.probes > 1 else ""
        return self.method + probes + (f":{self.serve}" if self.serve != "fp32" else "")

    @property
    def has_budget(self) -> bool:
        """Whether a budget sets its size; a full table has the size that it has."""
        return METHOD_SPECS[self.method].free is not None

    @property
    def trained(self) -> Contestant:
        """Whose training it is: without a size to set, all formats are served from one."""
        return self if self.has_budget else replace(self, serve="fp32")

    def table(self, full: TableSpec, *, budget: float) -> TableSpec:
        """The contestant's table with ``budget`` of the bytes of ``full``.

        Args:
            full: A full table: its name, vector width, optimiser and first rows are kept.
            budget: Share of the full table's bytes, above 0; 1 for a method without a size.

        Raises:
            RecipeError: The probes do not divide the width, or the method has no size to set.
        """
        if full.width % self.probes:
            raise RecipeError(f"{self.name}: {self.probes} probes do not divide width {full.width}")
        if not self.has_budget and budget != 1:
            raise RecipeError(f"{self.name} has no size to set: its budget is 1, got {budget:g}")
        return replace(
            full,
            method=self.method,
            width=full.width // self.probes,
            rows=None,
            budget=f"{100 * budget:g}%" if self.has_budget else None,
            options={},
            sharding=None,
            serve_dtype=self.serve,
            serve_group=0,
        )


def contestant(name: str) -> Contestant:
    """The contestant called ``name``: a method, ``-`` and its probes, ``:`` and its format.

    Raises:
        RecipeError: There is no such method or format.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in METHODS:
        known = ", ".join(METHODS)
        raise RecipeError(f"--methods: no method {name!r} (known: {known}; unified-4: 4 probes)")
    serve = match[3] or "fp32"
    if serve not in FORMATS:
        raise RecipeError(f"--methods: {name!r}: no format {serve} (known: {', '.join(FORMATS)})")
    return Contestant(cast(TableMethod, match[1]), int(match[2] or 1), cast(ServeFormat, serve))
