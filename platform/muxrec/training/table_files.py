"""Table states as safetensors: one file per rank, read back by any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.tables.state import TableRows, TableState

_PATTERN = "tables.rank*.safetensors"


def write_tables(folder: Path, state: TableState, *, rank: int) -> dict[str, Any]:
    """Write one rank's rows; returns what the manifest must say about all of them.

    Args:
        folder: Checkpoint folder, not yet sealed.
        state: The rows that this rank holds.
        rank: Its number.
    """
    tensors = {}
    for name, rows in state.tables.items():
        tensors[f"weight/{name}"] = rows.weight.contiguous()
        tensors[f"momentum/{name}"] = rows.momentum.contiguous()
        # A tensor and not safetensors' metadata, whose order differs from file to file.
        tensors[f"start/{name}"] = torch.tensor([rows.start])
    save_file(tensors, folder / f"tables.rank{rank:05d}.safetensors")
    return {
        "reads": list(state.reads),
        "hash_version": state.hash_version,
        "totals": {name: rows.total for name, rows in state.tables.items()},
    }


def read_tables(
    folder: Path, about: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]]
) -> TableState:
    """The wanted rows out of the files of however many ranks wrote them.

    Args:
        folder: A verified checkpoint folder.
        about: What ``write_tables`` returned.
        ranges: Table name -> first row and one past the last row wanted.

    Raises:
        TrainingError: The checkpoint lacks a table or some of its rows.
    """
    tables = {}
    for name, (start, stop) in ranges.items():
        if name not in about["totals"]:
            known = ", ".join(sorted(about["totals"])) or "none"
            raise TrainingError(f"{folder} holds no table {name} (it has {known})")
        weight, momentum = _rows(folder, name, start, stop)
        tables[name] = TableRows(about["totals"][name], start, weight, momentum)
    return TableState(tuple(about["reads"]), tables, about["hash_version"])


def _rows(folder: Path, name: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
    pieces = []
    for path in sorted(folder.glob(_PATTERN)):
        with safe_open(path, framework="pt") as file:
            first = int(file.get_tensor(f"start/{name}"))
            weight, momentum = file.get_slice(f"weight/{name}"), file.get_slice(f"momentum/{name}")
            low, high = max(start - first, 0), min(stop - first, weight.get_shape()[0])
            if low <= high:
                pieces.append((first + low, weight[low:high], momentum[low:high]))
    pieces.sort(key=lambda piece: (piece[0], len(piece[1])))
    weight = torch.cat([piece[1] for piece in pieces])
    if len(weight) != stop - start:
        raise TrainingError(f"{folder}: table {name} lacks some of the rows {start}..{stop}")
    return weight, torch.cat([piece[2] for piece in pieces])
