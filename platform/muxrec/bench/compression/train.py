"""One training of a click model: the same data order for every method, the best epoch kept."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.bench.compression.auc import auc, log_loss
from muxrec.bench.compression.batches import ClickBatches
from muxrec.bench.compression.clicks import ClickData, Part
from muxrec.bench.compression.model import ClickModel
from muxrec.errors import TrainingError
from muxrec.tables.build import Tables
from muxrec.tables.state import TableState

EVALUATION_BATCH = 8_192

OnEpoch = Callable[[int, float], None]
"""Called with the epoch, from 1, and its validation AUC."""


@dataclass(frozen=True)
class Schedule:
    """How a click model is trained.

    Attributes:
        batch_size: Impressions per step.
        epochs: Most passes over the training part.
        patience: Epochs without a better validation AUC after which training stops.
        dense_lr: Learning rate of AdamW on everything but the rows.
        weight_decay: Decoupled weight decay of the dense part.
    """

    batch_size: int
    epochs: int
    patience: int
    dense_lr: float
    weight_decay: float


@dataclass(frozen=True)
class Trained:
    """What a training came to; qualities are those of the best epoch's weights.

    Attributes:
        test_auc: AUC on the test part.
        test_log_loss: Log loss on the test part, nats.
        validation_auc: AUC on the validation part, the best of all epochs.
        best_epoch: Epoch of that, from 1.
        epochs: Epochs trained.
        step_ms: Median process CPU time of a step (forward, backward, update), milliseconds.
    """

    test_auc: float
    test_log_loss: float
    validation_auc: float
    best_epoch: int
    epochs: int
    step_ms: float


@dataclass
class _Best:
    auc: float = -math.inf
    epoch: int = 0
    dense: dict[str, Any] = field(default_factory=dict)
    tables: TableState | None = None


class ClickTraining:
    """Trains one model on one task.

    Args:
        model: The model; trained in place.
        data: The task, its features named as the model's.
        schedule: How to train.
        seed: Seed of the data order, which depends on nothing else.
    """

    def __init__(
        self, model: ClickModel, data: ClickData, schedule: Schedule, *, seed: int
    ) -> None:
        self.model, self.schedule = model, schedule
        self._data, self._batches = data, ClickBatches(data)
        self._dense = model.dense()
        self._optimizer = torch.optim.AdamW(
            self._dense.parameters(), lr=schedule.dense_lr, weight_decay=schedule.weight_decay
        )
        self._tables = cast(Tables, model.tables)
        self._rows = self._tables.table_optimizer()
        self._order = torch.Generator().manual_seed(seed)
        self._step_s: list[float] = []

    def run(self, on_epoch: OnEpoch | None = None) -> Trained:
        """Train until validation stops improving; the model is left with its best weights.

        Raises:
            TrainingError: The loss became NaN or infinite.
        """
        best, epoch = _Best(), 0
        for epoch in range(1, self.schedule.epochs + 1):
            self._epoch(epoch)
            reached, _ = self.evaluate("validation")
            if reached > best.auc:
                best = _Best(reached, epoch, _copy(self._dense), self._tables.export_state())
            if on_epoch:
                on_epoch(epoch, reached)
            if epoch - best.epoch >= self.schedule.patience:
                break
        self._restore(best)
        test_auc, test_loss = self.evaluate("test")
        middle = 1e3 * statistics.median(self._step_s)
        return Trained(test_auc, test_loss, best.auc, best.epoch, epoch, middle)

    def evaluate(self, part: Part) -> tuple[float, float]:
        """AUC and log loss of the model as it is, on one part."""
        labels = self._data.labels[self._data.positions[part]]
        logits = self.logits(part)
        return auc(logits, labels), log_loss(logits, labels)

    @torch.no_grad()
    def logits(self, part: Part) -> npt.NDArray[np.float32]:
        """Logits of one part's impressions, float32 ``[N]``, in the part's order."""
        self.model.eval()
        positions = torch.from_numpy(self._data.positions[part])
        found = [
            self.model(self._batches.take(some).sparse)
            for some in positions.split(EVALUATION_BATCH)
        ]
        return torch.cat(found).numpy()

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        positions = torch.from_numpy(self._data.positions["train"])
        shuffled = positions[torch.randperm(len(positions), generator=self._order)]
        for step, some in enumerate(shuffled.split(self.schedule.batch_size)):
            batch = self._batches.take(some)
            start = time.process_time()
            loss = F.binary_cross_entropy_with_logits(self.model(batch.sparse), batch.labels)
            self._update(loss, epoch, step)
            self._step_s.append(time.process_time() - start)

    def _update(self, loss: Tensor, epoch: int, step: int) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {epoch}, step {step}: lower the learning rates"
            )
        loss.backward()
        self._optimizer.step()
        self._rows.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _restore(self, best: _Best) -> None:
        self._dense.load_state_dict(best.dense)
        if best.tables is not None:
            self._tables.load_table_state(best.tables)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
