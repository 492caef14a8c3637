"""Filters over item attributes: which positions hold a value, and their vectors kept together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muxrec_serving.errors import invalid
from muxrec_serving.query import Filter

Positions = npt.NDArray[np.int64]
MAX_KEPT_BYTES = 64 * 2**20
MAX_KEPT = 4096


def values_of(value: object) -> list[str]:
    """The filter values of one cell: list elements, ``|``-separated parts, or the value itself."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split("|") if part.strip()]
    if isinstance(value, (list, tuple)):
        return [str(element) for element in value if element is not None]
    return [str(value)]


class AttributeIndex:
    """Positions per value of every filter column, and the recently used subsets' vectors."""

    def __init__(
        self, columns: Mapping[str, Sequence[Any]], vectors: npt.NDArray[np.float32]
    ) -> None:
        """Index ``columns`` (name -> C cells) of the items with ``vectors``, float32 ``[C, D]``."""
        self._vectors = vectors
        self._positions = {name: _by_value(cells) for name, cells in columns.items()}
        self._kept: OrderedDict[Filter, tuple[Positions, npt.NDArray[np.float32]]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that may be filtered by."""
        return tuple(self._positions)

    def counts(self, column: str) -> dict[str, int]:
        """How many items hold each value of ``column``, most frequent first."""
        sizes = {value: len(found) for value, found in self._positions[column].items()}
        return dict(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])))

    def check(self, where: Filter) -> None:
        """Refuse a filter on a column that the bundle has no filter for.

        Raises:
            RequestError: The column is unknown; the known ones are named.
        """
        for column, _ in where:
            if column not in self._positions:
                known = ", ".join(self._positions) or "none in this bundle"
                raise invalid(
                    f"cannot filter by {column[:40]!r}: known columns are {known}",
                    code="unknown_filter",
                )

    def select(self, where: Filter) -> Positions:
        """Positions, rising int64, of the items that meet every condition of ``where``."""
        return self.subset(where)[0]

    def subset(self, where: Filter) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Positions ``[S]`` and vectors ``[S, D]`` of the items that meet ``where``.

        The result is kept for the next request as long as the kept subsets fit their memory.
        """
        kept = self._kept.get(where)
        if kept is None:
            positions = self._intersection(where)
            kept = (positions, self._vectors[positions])
            self._keep(where, kept)
        return kept

    def _keep(self, where: Filter, entry: tuple[Positions, npt.NDArray[np.float32]]) -> None:
        if entry[1].nbytes > MAX_KEPT_BYTES // 4:
            return
        with self._lock:
            if where in self._kept:
                return
            self._kept[where] = entry
            self._kept_bytes += entry[1].nbytes
            while self._kept_bytes > MAX_KEPT_BYTES or len(self._kept) > MAX_KEPT:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._kept_bytes -= dropped.nbytes

    def _intersection(self, where: Filter) -> Positions:
        found = np.empty(0, dtype=np.int64)
        for number, (column, choices) in enumerate(where):
            held = [self._positions[column][c] for c in choices if c in self._positions[column]]
            either = np.unique(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
            found = either if number == 0 else np.intersect1d(found, either, assume_unique=True)
        return found


def meets(item: Mapping[str, Any], where: Filter) -> bool:
    """Whether a raw item meets every condition of ``where``."""
    return all(choices.intersection(values_of(item.get(column))) for column, choices in where)


def _by_value(cells: Sequence[Any]) -> dict[str, Positions]:
    found: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        for value in dict.fromkeys(values_of(cell)):
            found.setdefault(value, []).append(position)
    return {value: np.array(positions, dtype=np.int64) for value, positions in found.items()}
