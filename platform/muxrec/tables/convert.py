"""Table states as files: written by any number of ranks, read by any other number.

Every rank writes the rows that it holds, ``<table>.<first>-<stop>.safetensors``, or the columns,
``<table>.<first>-<stop>.<left>-<right>.safetensors``, and the first rank those that all hold, and a
``tables.json`` that says what the rows mean. A reader takes what it wants from whichever files hold
it, so no process ever needs a whole table. The folder proves itself by the manifest of the
checkpoint around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.tables.lowering import Place
from muxrec.tables.state import TableRows, TableState
from muxrec.tables.tensor_file import write_tensors

INDEX = "tables.json"
PLACES, CARRIED = "stages.json", "carried.safetensors"
RowRanges = Mapping[str, tuple[int, ...]]
"""Table name -> first row and one past the last; after them, where some columns only are held, the
first column and one past the last."""


def write_state(state: TableState, folder: Path, *, rank: int = 0) -> None:
    """Write this rank's share of a state into ``folder``, which exists and holds no other state.

    Args:
        state: Output of ``export_state`` or ``view_state``.
        folder: The same folder on every rank.
        rank: This process's number; rank 0 writes the index too.
    """
    for name, rows in state.tables.items():
        if rows.stop > rows.start and (rank == 0 or not rows.is_replicated):
            tensors = {"weight": rows.weight, "momentum": rows.momentum}
            if rows.scale is not None:
                tensors["scale"] = rows.scale
            if rows.updates is not None:
                tensors["updates"] = rows.updates
            write_tensors(tensors, folder / f"{_stem(name)}.{_span(rows)}.safetensors")
    if rank == 0:
        index = {
            "hash_version": state.hash_version,
            "reads": list(state.reads),
            "tables": {
                name: {
                    "rows": rows.total,
                    "width": rows.width,
                    "dtype": str(rows.weight.dtype).removeprefix("torch."),
                    "by_row": ["scale"] if rows.has_row_scales else [],
                    "by_table": _of_whole_table(rows),
                }
                for name, rows in state.tables.items()
            },
        }
        (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def read_state(
    folder: Path, *, ranges: RowRanges | None = None, names: Set[str] | None = None
) -> TableState:
    """Read a state, or a share of it.

    Args:
        folder: A folder filled by :func:`write_state` of all ranks.
        ranges: Rows (and columns) wanted, e.g. ``row_ranges()`` of the tables that will take them;
            None for all.
        names: Tables to read; None for all.

    Raises:
        TrainingError: The folder holds no state, a file is damaged, or wanted rows are missing.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} holds no readable {INDEX}: {error}") from error
    tables = {}
    for name, shape in index["tables"].items():
        if names is not None and name not in names:
            continue
        wanted = ranges[name] if ranges is not None else (0, shape["rows"])
        tables[name] = _read_rows(folder, name, shape, wanted)
    return TableState(tuple(index["reads"]), tables, index["hash_version"])


def write_places(places: Mapping[str, Place], folder: Path) -> None:
    """Write where each table's training is, and what its earlier stages left, into ``folder``."""
    stages = {name: place.stage for name, place in places.items()}
    (folder / PLACES).write_text(json.dumps(stages, indent=1), encoding="utf-8")
    arrays = {
        f"{quote(name, safe='')}/{key}": value.detach().cpu().contiguous()
        for name, place in places.items()
        for key, value in place.carried.items()
    }
    save_file(arrays, folder / CARRIED)


def read_places(folder: Path) -> dict[str, Place]:
    """What :func:`write_places` wrote.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    try:
        stages = json.loads((folder / PLACES).read_text(encoding="utf-8"))
        carried: dict[str, dict[str, Tensor]] = {name: {} for name in stages}
        for key, value in load_file(folder / CARRIED).items():
            table, _, name = key.partition("/")
            carried[unquote(table)][name] = value
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainingError(f"{folder} holds no readable stages: {error}") from error
    return {name: Place(stage, carried[name]) for name, stage in stages.items()}


def _read_rows(
    folder: Path, name: str, shape: Mapping[str, Any], range_: tuple[int, ...]
) -> TableRows:
    """Rows put together from whichever files hold pieces of them.

    A row's momentum is the mean over its wanted columns of what the pieces say, which is exact
    where every piece holds the sum of whole rows, as all but those of ``grid`` do.
    """
    start, stop, left, right = (*range_, 0, shape["width"])[:4]
    count, width = stop - start, right - left
    weight = torch.empty(count, width, dtype=getattr(torch, shape["dtype"]))
    momentum = torch.zeros(count, dtype=torch.float64)
    by_row = {key: torch.empty(count) for key in shape["by_row"]}
    whole: dict[str, Tensor] = {}
    filled = 0
    for piece in _pieces(folder, name, shape["width"]):
        low, high = max(start, piece.start), min(stop, piece.stop)
        first, last = max(left, piece.left), min(right, piece.right)
        if low >= high or first >= last:
            continue
        rows = slice(low - start, high - start)
        with piece.opened() as opened:
            part = slice(low - piece.start, high - piece.start)
            columns = slice(first - piece.left, last - piece.left)
            weight[rows, first - left : last - left] = opened.get_slice("weight")[part, columns]
            momentum[rows] += opened.get_slice("momentum")[part].double() * (last - first)
            for key, values in by_row.items():
                values[rows] = opened.get_slice(key)[part]
            whole = {key: opened.get_tensor(key) for key in shape["by_table"]}
        filled += (high - low) * (last - first)
    if filled != count * width:
        raise TrainingError(
            f"{folder}: {filled // width} of rows {start}..{stop} of table {name} are there: a "
            "rank's file is missing or there twice"
        )
    means = momentum.div_(max(width, 1)).float()
    of_width = None if width == shape["width"] else shape["width"]
    scale, updates = by_row.get("scale", whole.get("scale")), whole.get("updates")
    return TableRows(
        shape["rows"], start, weight, means, scale, left, of_width=of_width, updates=updates
    )


def _of_whole_table(rows: TableRows) -> list[str]:
    """Names of the arrays of one number that belongs to all rows."""
    is_shared = rows.scale is not None and not rows.has_row_scales
    return ["scale"] * is_shared + ["updates"] * (rows.updates is not None)


class _Piece(NamedTuple):
    """A file with some rows, or some columns of them."""

    path: Path
    start: int
    stop: int
    left: int
    right: int

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, closed afterwards.

        Raises:
            TrainingError: It is damaged.
        """
        try:
            with safe_open(self.path, framework="pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{self.path} is damaged: {error}") from error


def _pieces(folder: Path, name: str, width: int) -> list[_Piece]:
    """Files of a table, by row and column."""
    stem, found = _stem(name), []
    for path in folder.glob(f"{stem}.*-*.safetensors"):
        rows, _, columns = path.name[len(stem) + 1 :].removesuffix(".safetensors").partition(".")
        start, stop = rows.split("-")
        left, right = columns.split("-") if columns else (0, width)
        found.append(_Piece(path, int(start), int(stop), int(left), int(right)))
    return sorted(found, key=lambda piece: (piece.start, piece.left))


def _span(rows: TableRows) -> str:
    """Rows held, and columns where they are some only: ``0-50`` or ``0-50.0-8``."""
    columns = "" if rows.of_width is None else f".{rows.left}-{rows.right}"
    return f"{rows.start}-{rows.stop}{columns}"


def _stem(name: str) -> str:
    """The table's name as a file name without dots, so that no table's files match another's."""
    return quote(name, safe="").replace(".", "%2E").replace("*", "%2A")
