"""Table states as files: written by any number of ranks, read by any other number.

Every rank writes the rows that it holds, ``<table>.<first>-<stop>.safetensors``, and the first rank
a ``tables.json`` that says what the rows mean. A reader takes the rows that it wants from whichever
files hold them, so no process ever needs a whole table. The folder proves itself by the manifest of
the checkpoint around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.tables.lowering import Place
from muxrec.tables.state import TableRows, TableState

INDEX = "tables.json"
PLACES, CARRIED = "stages.json", "carried.safetensors"
RowRanges = Mapping[str, tuple[int, int]]


def write_state(state: TableState, folder: Path, *, rank: int = 0) -> None:
    """Write this rank's share of a state into ``folder``, which exists and holds no other state.

    Args:
        state: Output of ``export_state``.
        folder: The same folder on every rank.
        rank: This process's number; rank 0 writes the index too.
    """
    for name, rows in state.tables.items():
        if rows.stop > rows.start:
            tensors = {"weight": rows.weight.contiguous(), "momentum": rows.momentum.contiguous()}
            if rows.scale is not None:
                tensors["scale"] = rows.scale.contiguous()
            save_file(tensors, folder / f"{_stem(name)}.{rows.start}-{rows.stop}.safetensors")
    if rank == 0:
        index = {
            "hash_version": state.hash_version,
            "reads": list(state.reads),
            "tables": {
                name: {
                    "rows": rows.total,
                    "width": rows.weight.shape[1],
                    "dtype": str(rows.weight.dtype).removeprefix("torch."),
                    "has_scale": rows.scale is not None,
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
        ranges: Table name -> first row and one past the last row wanted, e.g. ``row_ranges()`` of
            the tables that will take it; None for all rows.
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
        start, stop = ranges[name] if ranges is not None else (0, shape["rows"])
        tables[name] = _read_rows(folder, name, shape, start, stop)
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
    folder: Path, name: str, shape: Mapping[str, Any], start: int, stop: int
) -> TableRows:
    count = stop - start
    wanted = {"weight": torch.empty(count, shape["width"], dtype=getattr(torch, shape["dtype"]))}
    wanted["momentum"] = torch.empty(count)
    if shape["has_scale"]:
        wanted["scale"] = torch.empty(count)
    filled = 0
    for path, first, end in _files(folder, name):
        low, high = max(start, first), min(stop, end)
        if low >= high:
            continue
        for key, found in _read_file(path, low - first, high - first, list(wanted)).items():
            wanted[key][low - start : high - start] = found
        filled += high - low
    if filled != count:
        raise TrainingError(
            f"{folder}: {filled} of rows {start}..{stop} of table {name} are there: a rank's file "
            "is missing or there twice"
        )
    return TableRows(
        shape["rows"], start, wanted["weight"], wanted["momentum"], wanted.get("scale")
    )


def _read_file(path: Path, start: int, stop: int, names: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_slice(name)[start:stop] for name in names}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is damaged: {error}") from error


def _files(folder: Path, name: str) -> list[tuple[Path, int, int]]:
    found = []
    for path in folder.glob(f"{_stem(name)}.*-*.safetensors"):
        first, stop = path.name.removesuffix(".safetensors").rsplit(".", 1)[1].split("-")
        found.append((path, int(first), int(stop)))
    return sorted(found, key=lambda entry: entry[1])


def _stem(name: str) -> str:
    """The table's name as a file name without dots, so that no table's files match another's."""
    return quote(name, safe="").replace(".", "%2E").replace("*", "%2A")
