"""Checkpoints: sealed folders with everything that the next step depends on.

``checkpoints/step=<n>/`` holds the dense weights, the optimiser's moments and the rows that each
rank held, all safetensors, and a manifest with the progress. There is no generator state to keep:
every step seeds its own generators from (seed, epoch, step, rank).
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from muxrec.errors import BundleError
from muxrec.log import event
from muxrec.manifest import verify

KIND = "checkpoint"
FORMAT_VERSION = 2
"""Of the layout and of the names and shapes of what is saved: a change of the tower raises it, and
trainings of the version before are then made again instead of failing when they are loaded."""

CHECKPOINTS = "checkpoints"

log = logging.getLogger("muxrec.training")


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        epoch: Epoch of the next step, from 0.
        step: Next step inside it.
        steps: Steps done in all.
        best: Best validation metric so far; None before the first.
        best_steps: ``steps`` when it was reached.
        epochs_since_best: Epochs since then.
        is_done: Whether the training has ended.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_steps: int = 0
    epochs_since_best: int = 0
    is_done: bool = False

    def judged(self, metric: float) -> Progress:
        """The progress after an epoch that reached ``metric``; NaN is never the best."""
        if not math.isnan(metric) and (self.best is None or metric > self.best):
            return replace(self, best=metric, best_steps=self.steps, epochs_since_best=0)
        return replace(self, epochs_since_best=self.epochs_since_best + 1)

    def as_json(self) -> dict[str, Any]:
        """The progress as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint folder.

    Attributes:
        folder: The folder.
        manifest: Its manifest.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def progress(self) -> Progress:
        """The training's progress when it was written."""
        return Progress(**self.manifest["progress"])


def checkpoint_folder(folder: Path, steps: int) -> Path:
    """Where the checkpoint after ``steps`` steps lies, below the training's ``folder``."""
    return folder / CHECKPOINTS / f"step={steps}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints below the training's ``folder``, oldest first, unverified."""
    found = [path for path in (folder / CHECKPOINTS).glob("step=*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, every file compared with its manifest.

    Raises:
        BundleError: A file is missing, truncated or edited; it is named.
        HashMismatchError: It was made with another hash spec.
    """
    return Checkpoint(path, verify(path, kind=KIND, format_version=FORMAT_VERSION))


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint below ``folder``, or None.

    A damaged one is named in a warning and set aside as ``step=<n>.damaged``, so that training from
    the one before it can publish that step again.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            return open_checkpoint(path)
        except BundleError as error:
            log.warning(event("checkpoint_damaged", reason=str(error), action="use the one before"))
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove checkpoints that a killed process had not finished; none may be writing now."""
    for path in (folder / CHECKPOINTS).glob(".step=*.tmp"):
        shutil.rmtree(path)


def prune_checkpoints(folder: Path, *, keep: int, best_steps: int) -> None:
    """Remove all but the newest ``keep`` checkpoints (at least 1) and the best one."""
    for path in list_checkpoints(folder)[: -max(1, keep)]:
        if path != checkpoint_folder(folder, best_steps):
            shutil.rmtree(path)
