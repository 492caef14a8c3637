"""The trained rows: vectors that a training left in the run folder, measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muxrec.errors import DataError
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import vector_scorer
from muxrec.evaluation.study import MAIN, Measured, Row, measure

VECTORS, DONE = "vectors.npy", "done.json"


@dataclass(frozen=True)
class TrainedRun:
    """One training that the recipe asks for.

    Attributes:
        name: Variant: ``main``, an ablation or a control.
        is_control: Whether it is a control.
        seed: Seed.
        folder: Where its ``vectors.npy`` is, once it is trained.
        identity: What decides the training, as its ``done.json`` holds it; None to take any.
    """

    name: str
    is_control: bool
    seed: int
    folder: Path
    identity: Mapping[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Whether it was trained to the end by this recipe and its vectors are there."""
        is_there = (self.folder / DONE).is_file() and (self.folder / VECTORS).is_file()
        return is_there and not self.is_of_another_recipe

    @property
    def is_of_another_recipe(self) -> bool:
        """Whether what lies here was trained on the same dataset by another recipe."""
        done = _read_done(self.folder)
        if done is None or self.identity is None or done.get("dataset") != self.identity["dataset"]:
            return False
        return done.get("recipe_hash") != self.identity["recipe_hash"]


def _read_done(folder: Path) -> dict[str, Any] | None:
    """``done.json``; None where it is missing or damaged, which ``load_vectors`` tells."""
    try:
        found = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def load_vectors(run: TrainedRun, *, count: int, digest: str) -> npt.NDArray[np.float32]:
    """The run's item vectors, float32 ``[C, D]``.

    Args:
        run: A run that is done.
        count: Items of the dataset.
        digest: Content digest of the dataset.

    Raises:
        DataError: The file is damaged, or was trained on another dataset.
    """
    path = run.folder / VECTORS
    try:
        trained_on = json.loads((run.folder / DONE).read_text(encoding="utf-8")).get("dataset")
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): train {run.name} again") from error
    if trained_on != digest or vectors.ndim != 2 or len(vectors) != count:
        raise DataError(
            f"{path} (shape {list(vectors.shape)}) was trained on dataset {str(trained_on)[:12]}, "
            f"the run folder now holds {digest[:12]} with {count} items: train {run.name} again"
        )
    return vectors.astype(np.float32, copy=False)


def trained_rows(
    runs: Sequence[TrainedRun],
    relevance: Mapping[str, Relevance],
    train_events: npt.NDArray[np.int64],
    *,
    digest: str,
) -> list[Row]:
    """Rows of all runs that are done: ablations first, ``main``, then the controls.

    Raises:
        DataError: Vectors are damaged, not finite or of another catalogue.
    """
    measured: dict[str, dict[int, Measured]] = {}
    for run in (run for run in runs if run.is_done):
        vectors = load_vectors(run, count=len(train_events), digest=digest)
        found = measure(vector_scorer(vectors), relevance, train_events)
        measured.setdefault(run.name, {})[run.seed] = found
    controls = {run.name for run in runs if run.is_control}
    order = sorted(measured, key=lambda name: (name in controls, name == MAIN))
    return [
        Row(name, "control" if name in controls else "trained", measured[name]) for name in order
    ]


def missing_runs(runs: Sequence[TrainedRun]) -> dict[str, list[int]]:
    """Variant -> seeds that have no vectors of this recipe."""
    missing: dict[str, list[int]] = {}
    for run in (run for run in runs if not run.is_done):
        missing.setdefault(run.name, []).append(run.seed)
    return missing
