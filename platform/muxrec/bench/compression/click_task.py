"""The click task: one cell of a sweep, from a method at a budget to a measured result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from muxrec import __version__
from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.contestants import Contestant, contestant
from muxrec.bench.compression.making import Making
from muxrec.bench.compression.plans import plan
from muxrec.bench.compression.record import Result
from muxrec.bench.compression.schedule import OnEpoch
from muxrec.bench.compression.serving import check_format
from muxrec.bench.compression.settings import ClickSettings
from muxrec.bench.compression.shared import SharedTrainings
from muxrec.bench.compression.sweep import Cell
from muxrec.bench.compression.train import ClickTraining
from muxrec.spec.hashing import HASH_VERSION
from muxrec.tables.build import Engine


@dataclass(frozen=True)
class ClickTask:
    """Click prediction on one data set; follows :class:`muxrec.bench.compression.sweep.Task`.

    Attributes:
        data: The data.
        settings: What is the same for every method.
        engine: Engine of the tables.
    """

    data: ClickData
    settings: ClickSettings
    engine: Engine = "auto"
    _trainings: SharedTrainings[ClickTraining] = field(
        default_factory=SharedTrainings, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """Name of the task."""
        return "click"

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.data.name

    def identity(self) -> dict[str, Any]:
        """All that decides a result besides the cell."""
        return {
            "task": self.name,
            "data": self.dataset,
            "data_digest": self.data.digest(),
            "engine": self.engine,
            "muxrec": __version__,
            "hash": HASH_VERSION,
            **asdict(self.settings),
        }

    def facts(self) -> dict[str, str]:
        """What the results rest on."""
        given, schedule = self.settings, self.settings.schedule
        return {
            "width": f"{given.width} numbers per feature",
            "model": f"{given.head} over the concatenated vectors, so every feature has "
            "first-layer weights of its own; rows start uniform in "
            f"[-{given.init:g}, {given.init:g}]",
            "training": f"batch {schedule.batch_size:,}, at most {schedule.epochs} epochs, which a "
            f"method's stages share, stop after {schedule.patience} without a better validation "
            f"AUC, best epoch kept; AdamW {schedule.dense_lr:g} on the dense part, decay "
            f"{schedule.weight_decay:g}; row-wise adagrad or rmsprop on the rows",
            "time per step": "process CPU time of forward, backward and update on one thread, "
            "median",
        }

    def run(self, cell: Cell, settings: Mapping[str, Any], on_epoch: OnEpoch) -> Result:
        """Train and measure one cell, on one thread.

        Raises:
            RecipeError: The method cannot have the cell's budget.
            TrainingError: The loss became NaN or infinite.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run(cell, settings, on_epoch)
        finally:
            torch.set_num_threads(threads)

    def _run(self, cell: Cell, settings: Mapping[str, Any], on_epoch: OnEpoch) -> Result:
        entrant, data = contestant(cell.method), salted(self.data, cell.seed)
        self._check_format(entrant, data, cell.budget)
        training = self._trainings(cell, lambda: self._train(data, cell, on_epoch))
        trained = training.measured(None if entrant == entrant.trained else entrant.serve)
        given = self.settings
        return Result(
            task=self.name,
            data=self.dataset,
            method=cell.method,
            budget=cell.budget,
            seed=cell.seed,
            metric="AUC",
            quality=trained.test_auc,
            validation=trained.validation_auc,
            others={"log loss": trained.test_log_loss},
            optimizer=cell.rate.optimizer,
            table_lr=cell.rate.lr,
            epochs=trained.epochs,
            best_epoch=trained.best_epoch,
            step_ms=trained.step_ms,
            width=given.width,
            parameters=trained.parameters,
            training_bytes=trained.training_bytes,
            serving_bytes=trained.serving_bytes,
            dictionary_bytes=trained.dictionary_bytes,
            label_rule=data.label_rule,
            split_rule=data.split_rule,
            settings=settings,
        )

    def _check_format(self, entrant: Contestant, data: ClickData, budget: float) -> None:
        if entrant.serve == "fp32":
            return
        given = self.settings
        made = plan(entrant, data, budget=budget, width=given.width, init=given.init)
        check_format(made.features, made.table, made.vocabularies)

    def _train(self, data: ClickData, cell: Cell, on_epoch: OnEpoch) -> ClickTraining:
        given, entrant = self.settings, contestant(cell.method).trained
        made = plan(entrant, data, budget=cell.budget, width=given.width, init=given.init)
        making = Making(
            made.under(cell.rate.optimizer), given.head, self.engine, cell.seed, cell.rate.lr
        )
        training = ClickTraining(making, data, given.schedule)
        training.run(on_epoch)
        return training


def salted(data: ClickData, seed: int) -> ClickData:
    """The same task under feature names of this seed.

    The name salts the hash, so every seed has another hash and the spread over seeds holds the luck
    of collisions, which at small budgets is most of it.
    """
    names = {feature.name: f"{feature.name}~{seed}" for feature in data.features}
    return replace(
        data,
        features=tuple(replace(f, name=names[f.name]) for f in data.features),
        columns={names[name]: column for name, column in data.columns.items()},
    )
