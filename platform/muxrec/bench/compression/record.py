"""One measured point: a task, a method at a budget with one seed, its quality and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from muxrec.errors import DataError
from muxrec.manifest import write_text_atomically

FORMAT = 1


@dataclass(frozen=True)
class Result:
    """A training and what it came to; the report knows nothing of the task but this.

    Attributes:
        task: Task, e.g. ``click``.
        data: Data set.
        method: Method with its variant, e.g. ``unified-4``.
        budget: Share of full tables' bytes that was asked for.
        seed: Seed of rows, data order and hash.
        metric: Name of the quality, e.g. ``AUC``; higher is better.
        quality: Its value on the test part.
        validation: Its value on the validation part; tuning looks at this one only.
        others: Other measures of the test part, by name.
        optimizer: Rule of the rows' updates.
        table_lr: Learning rate of the rows.
        epochs: Epochs trained.
        best_epoch: Epoch whose weights were kept, from 1.
        step_ms: Median process CPU time of a training step, milliseconds.
        width: Numbers of a feature's vector.
        parameters: Trained numbers of the tables.
        training_bytes: Most bytes of the tables in any stage: numbers, optimiser state, maps.
        serving_bytes: Bytes of the tables in their served form.
        dictionary_bytes: Bytes of the dictionary of known ids, part of both; no budget limits it.
        label_rule: What counts as right, in words.
        split_rule: How the parts were drawn, in words.
        settings: Everything that decides the result, and its digest's content.
    """

    task: str
    data: str
    method: str
    budget: float
    seed: int
    metric: str
    quality: float
    validation: float
    others: Mapping[str, float]
    optimizer: str
    table_lr: float
    epochs: int
    best_epoch: int
    step_ms: float
    width: int
    parameters: int
    training_bytes: int
    serving_bytes: int
    dictionary_bytes: int
    label_rule: str
    split_rule: str
    settings: Mapping[str, Any]


def write_result(path: Path, result: Result) -> None:
    """Write a result in one rename, so that an interrupted sweep leaves whole files only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **asdict(result)}, indent=1, ensure_ascii=False)
    write_text_atomically(path, text + "\n")


def read_result(path: Path) -> Result:
    """The result in ``path``.

    Raises:
        DataError: The file is no result of this format.
    """
    names = {field.name for field in fields(Result)}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT or set(found) != names:
            raise KeyError("format")
        return Result(**found)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: expected a result of format {FORMAT}: delete the file to measure it again"
        ) from error
