"""What one training is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muxrec.manifest import digest_of
from muxrec.recipe.load import recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.training.build import PreparedItems
from muxrec.training.checkpoint import FORMAT_VERSION
from muxrec.training.ranks import Ranks
from muxrec.training.validation import Validation

SECTIONS = ("features", "tables", "tower", "objective", "train", "seed")
"""Sections of a recipe that decide the trained weights, given the dataset's digest."""

Report = Callable[[int, dict[str, float]], None]
"""``(step, metrics) -> None``, e.g. ``RunLogger.metrics``."""


def _silent(step: int, metrics: dict[str, float]) -> None:
    """Report to nobody."""


def training_identity(recipe: Recipe, *, dataset: str, control: str | None) -> dict[str, Any]:
    """What decides a training's outcome, as its checkpoints and ``done.json`` hold it.

    How tables are cut over processes is no part of it: like the number of processes it changes
    the order of sums only, and checkpoints open under any.

    Args:
        recipe: The variant's recipe.
        dataset: Digest of the dataset snapshot.
        control: Name of the control, or None.
    """
    sections = [*SECTIONS, *(("evaluation",) if recipe.train.early_stop else ())]
    uncut = replace(recipe, tables=tuple(replace(t, sharding=None) for t in recipe.tables))
    digest = digest_of([recipe_hash(uncut, *sections), dataset, control])
    return {
        "recipe_hash": digest,
        "dataset": dataset,
        "control": control,
        "checkpoint_format": FORMAT_VERSION,
    }


@dataclass(frozen=True)
class Job:
    """One training: a recipe on prepared items.

    Attributes:
        recipe: The variant's recipe; its ``seed`` decides everything random.
        prepared: The variant's prepared items.
        pair_files: Parquet files of the training pairs.
        folder: ``train/<variant>/seed=<s>`` of the run.
        dataset: Digest of the dataset snapshot.
        control: Name of the control whose arrays these are, or None.
        validation: Validation ranking after every epoch; None for none.
        report: Where metrics go while training runs.
        ranks: This process among its peers.
    """

    recipe: Recipe
    prepared: PreparedItems
    pair_files: Sequence[Path]
    folder: Path
    dataset: str
    control: str | None = None
    validation: Validation | None = None
    report: Report = _silent
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the outcome; two jobs with the same identity are the same training."""
        return training_identity(self.recipe, dataset=self.dataset, control=self.control)
