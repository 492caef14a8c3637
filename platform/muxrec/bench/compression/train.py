"""One training of a click model: the same data order for every method, the best epoch kept."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from muxrec.bench.compression.auc import auc, log_loss
from muxrec.bench.compression.batches import ClickBatches
from muxrec.bench.compression.clicks import ClickData, Part
from muxrec.bench.compression.making import Making
from muxrec.bench.compression.model import ClickModel
from muxrec.bench.compression.plans import TABLE
from muxrec.bench.compression.schedule import OnEpoch, Schedule, Trained
from muxrec.bench.compression.serving import frozen_tables, served_tables
from muxrec.bench.compression.step import Stepper
from muxrec.spec.features import ServeFormat
from muxrec.tables.memory import measured_serving, measured_training
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import (
    advance,
    check_epochs,
    keep_maps,
    restarts,
    stages_due,
    whole_rows,
)
from muxrec.tables.state import TableState

EVALUATION_BATCH = 8_192


@dataclass
class _Best:
    auc: float = -math.inf
    epoch: int = 0
    dense: dict[str, Tensor] = field(default_factory=dict)
    tables: TableState | None = None


class ClickTraining:
    """Trains a fresh model on one task.

    Every stage of a method but the last runs its epochs; the last stops early. A stage leaves the
    weights of its best epoch to the next, and the last one's are served.

    Args:
        making: What the model is made from.
        data: The task, its features named as the model's.
        schedule: How to train.

    Raises:
        RecipeError: The method has more stages than there are epochs.
    """

    def __init__(self, making: Making, data: ClickData, schedule: Schedule) -> None:
        self.model, self.schedule = making.model(), schedule
        check_epochs(self.model.tables.lowering, schedule.epochs)
        self._making, self._data, self._batches = making, data, ClickBatches(data)
        self._order = torch.Generator().manual_seed(making.seed)
        self._stepper = Stepper(self.model, schedule)
        self._best, self._number, self._epochs = _Best(), 0, 0
        self._training_bytes = measured_training(self.model.tables).total

    def run(self, on_epoch: OnEpoch | None = None) -> Trained:
        """Train until the last stage stops improving; the model is left with its best weights.

        Raises:
            TrainingError: The loss became NaN or infinite.
        """
        done = 0
        while done < self.schedule.epochs and not self._is_over(done):
            self._enter_stages(done)
            self._epoch(done)
            done += 1
            reached = self.evaluate(self.model, "validation")[0]
            if reached > self._best.auc:
                tables = self.model.tables.export_state()
                self._best = _Best(reached, done, _copy(self.model.dense()), tables)
            if on_epoch:
                on_epoch(done, reached)
        self._restore()
        self._epochs = done
        return self.measured()

    def served(self, serve: ServeFormat | None = None) -> ClickModel:
        """The model with its tables in the form that is served.

        Args:
            serve: Format of the rows; None for the one that the plan declares.
        """
        table = None if serve is None else TABLE
        frozen = frozen_tables(self.model.tables, table=table, serve=serve or "fp32")
        return ClickModel(served_tables(frozen), self.model.head)

    def evaluate(self, model: ClickModel, part: Part) -> tuple[float, float]:
        """AUC and log loss of a model on one part."""
        labels = self._data.labels[self._data.positions[part]]
        logits = self.logits(model, part)
        return auc(logits, labels), log_loss(logits, labels)

    @torch.no_grad()
    def logits(self, model: ClickModel, part: Part) -> npt.NDArray[np.float32]:
        """Logits of one part's impressions, float32 ``[N]``, in the part's order."""
        model.eval()
        pieces = torch.from_numpy(self._data.positions[part]).split(EVALUATION_BATCH)
        found = [model(self._batches.take(piece).sparse) for piece in pieces]
        return torch.cat(found).numpy()

    def _is_over(self, done: int) -> bool:
        """Whether the tables are in their last stage and it no longer improves."""
        epochs, lowering = self.schedule.epochs, self.model.tables.lowering
        is_last = not stages_due(lowering, epoch=epochs, epochs=epochs)
        return (
            is_last and self._best.epoch > 0 and done - self._best.epoch >= self.schedule.patience
        )

    def _enter_stages(self, epoch: int) -> None:
        old, epochs = self.model.tables, self.schedule.epochs
        due = stages_due(old.lowering, epoch=epoch, epochs=epochs)
        if not due:
            return
        self._restore()
        places = advance(
            old,
            due,
            rows=whole_rows(old),
            evaluate=lambda: self.evaluate(self.model, "validation")[0],
        )
        if restarts(old.lowering, due):
            self.model, before = self._making.model(places), None
        else:
            self.model = ClickModel(self._making.tables(places), self.model.head)
            keep_maps(self.model.tables, old)
            before = self._stepper
        self._best, self._stepper = _Best(), Stepper(self.model, self.schedule, before=before)
        now = measured_training(self.model.tables).total
        self._training_bytes = max(self._training_bytes, now)

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        positions = torch.from_numpy(self._data.positions["train"])
        shuffled = positions[torch.randperm(len(positions), generator=self._order)]
        pieces = shuffled.split(self.schedule.batch_size)
        for at, piece in enumerate(pieces, start=1):
            batch, part = self._batches.take(piece), at / len(pieces)
            self._stepper(batch, number=self._number, epoch=epoch, part=part)
            self._number += 1

    def _restore(self) -> None:
        if self._best.tables is not None:
            self.model.dense().load_state_dict(self._best.dense)
            self.model.tables.load_table_state(self._best.tables)

    def measured(self, serve: ServeFormat | None = None) -> Trained:
        """What the training came to, its rows served in ``serve``; see :meth:`served`."""
        served, tables = self.served(serve), self.model.tables
        test_auc, test_log_loss = self.evaluate(served, "test")
        serving = measured_serving(cast(ReferenceTables, served.module))
        numbers = sum(rows.weight.numel() for rows in tables.local_tables().values())
        return Trained(
            test_auc,
            test_log_loss,
            validation_auc=self.evaluate(served, "validation")[0],
            best_epoch=self._best.epoch,
            epochs=self._epochs,
            step_ms=1e3 * statistics.median(self._stepper.step_s),
            parameters=numbers + sum(p.numel() for p in tables.vectors.parameters()),
            training_bytes=self._training_bytes,
            serving_bytes=serving.total,
            dictionary_bytes=serving.dictionary,
        )


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
