"""The trained rows: vectors that a training left in the run folder, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muxrec.errors import DataError
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import vector_scorer
from muxrec.evaluation.study import MAIN, Measured, Row, measure

VECTORS = "vectors.npy"


@dataclass(frozen=True)
class TrainedRun:
    """One training that the recipe asks for.

    Attributes:
        name: Variant: ``main``, an ablation or a control.
        is_control: Whether it is a control.
        seed: Seed.
        folder: Where its ``vectors.npy`` is, once it is trained.
    """

    name: str
    is_control: bool
    seed: int
    folder: Path

    @property
    def is_done(self) -> bool:
        """Whether its vectors are there."""
        return (self.folder / VECTORS).is_file()


def load_vectors(run: TrainedRun, *, count: int) -> npt.NDArray[np.float32]:
    """The run's item vectors, float32 ``[C, D]``.

    Raises:
        DataError: The file is damaged, or holds another number of items than the dataset.
    """
    path = run.folder / VECTORS
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): train {run.name} again") from error
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(
            f"{path} has shape {list(vectors.shape)}, the dataset has {count} items: "
            f"it was trained on another dataset, train {run.name} again"
        )
    return vectors.astype(np.float32, copy=False)


def trained_rows(
    runs: Sequence[TrainedRun],
    relevance: Mapping[str, Relevance],
    train_events: npt.NDArray[np.int64],
) -> list[Row]:
    """Rows of all runs that are done: ablations first, ``main``, then the controls.

    Raises:
        DataError: Vectors are damaged, not finite or of another catalogue.
    """
    measured: dict[str, dict[int, Measured]] = {}
    for run in (run for run in runs if run.is_done):
        vectors = load_vectors(run, count=len(train_events))
        found = measure(vector_scorer(vectors), relevance, train_events)
        measured.setdefault(run.name, {})[run.seed] = found
    controls = {run.name for run in runs if run.is_control}
    order = sorted(measured, key=lambda name: (name in controls, name == MAIN))
    return [
        Row(name, "control" if name in controls else "trained", measured[name]) for name in order
    ]


def missing_runs(runs: Sequence[TrainedRun]) -> dict[str, list[int]]:
    """Variant -> seeds that have no vectors yet."""
    missing: dict[str, list[int]] = {}
    for run in (run for run in runs if not run.is_done):
        missing.setdefault(run.name, []).append(run.seed)
    return missing
