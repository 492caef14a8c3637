"""The items of one bundle: ids, display fields, filter columns, titles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as arrow_types

from muxrec_serving.answering.titles import TitleIndex


@dataclass(frozen=True)
class Catalogue:
    """Items by position.

    Attributes:
        table: One row per position: ``item_id``, ``is_cold``, ``train_events``, the columns below.
        display: Columns shown to people.
        filters: Columns that requests may filter by.
    """

    table: pa.Table
    display: tuple[str, ...]
    filters: tuple[str, ...]

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def item_ids(self) -> list[str]:
        """Item id of each position."""
        return self.table.column("item_id").cast(pa.string()).to_pylist()

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each item id."""
        return {item_id: position for position, item_id in enumerate(self.item_ids)}

    @cached_property
    def title_column(self) -> str | None:
        """The column searched by title: ``title``, or the first display column of text."""
        texts = [name for name in self.display if _is_text(self.table.schema.field(name).type)]
        return "title" if "title" in texts else next(iter(texts), None)

    @cached_property
    def titles(self) -> list[str]:
        """Title of each position; the item id where there is none."""
        if self.title_column is None:
            return self.item_ids
        cells = self.table.column(self.title_column).to_pylist()
        return [cell or item_id for cell, item_id in zip(cells, self.item_ids, strict=True)]

    @cached_property
    def title_index(self) -> TitleIndex:
        """Search over the titles."""
        return TitleIndex(self.titles, self._popularity)

    @cached_property
    def by_popularity(self) -> npt.NDArray[np.int64]:
        """Positions, those with the most training events first, int64 ``[C]``."""
        return np.argsort(-self._popularity, kind="stable")

    @cached_property
    def _popularity(self) -> npt.NDArray[np.int64]:
        return self.table.column("train_events").to_numpy().astype(np.int64)

    def cells(self, column: str) -> list[Any]:
        """Values of ``column``, one per position."""
        return self.table.column(column).to_pylist()

    def fields(self, position: int) -> dict[str, Any]:
        """Display fields of the item at ``position``."""
        return {name: self.table.column(name)[position].as_py() for name in self.display}

    def facts(self, position: int) -> dict[str, Any]:
        """What training knew of the item: its events, and whether it was cold."""
        names = ("is_cold", "train_events")
        return {name: self.table.column(name)[position].as_py() for name in names}


def _is_text(kind: pa.DataType) -> bool:
    return arrow_types.is_string(kind) or arrow_types.is_large_string(kind)
