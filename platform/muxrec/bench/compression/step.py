"""One step of a click training, with what the tables' method asks for."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec.bench.compression.batches import ClickBatch
from muxrec.bench.compression.model import ClickModel
from muxrec.bench.compression.schedule import Schedule
from muxrec.errors import TrainingError
from muxrec.tables.staging import after_step, is_search_step, rows_kept, step_architecture


class Stepper:
    """Updates a model, batch by batch.

    Args:
        model: The model; its tables are in one stage.
        schedule: Learning rate and decay of the dense part.
        before: Who stepped in the stage before; moments of parameters that go on are kept.
    """

    def __init__(
        self, model: ClickModel, schedule: Schedule, *, before: Stepper | None = None
    ) -> None:
        self.model, self.epochs = model, schedule.epochs
        self.step_s: list[float] = before.step_s if before else []
        self._dense = model.dense()
        searched = {id(parameter) for parameter in model.tables.vectors.architecture()}
        trained = [p for p in self._dense.parameters() if id(p) not in searched]
        self._optimizer = torch.optim.AdamW(
            trained, lr=schedule.dense_lr, weight_decay=schedule.weight_decay
        )
        self._rows = model.tables.table_optimizer()
        moments = before._optimizer.state if before else {}
        for parameter in trained:
            if parameter in moments:
                self._optimizer.state[parameter] = moments[parameter]

    def __call__(self, batch: ClickBatch, *, number: int, epoch: int, part: float) -> None:
        """Train on one batch.

        Args:
            batch: Impressions.
            number: Number of the step in the whole training, from 0.
            epoch: Its epoch, from 0.
            part: Share of the epoch that is done with it.

        Raises:
            TrainingError: The loss became NaN or infinite.
        """
        start, tables = time.process_time(), self.model.tables
        searches = is_search_step(tables.lowering, number)
        with rows_kept(tables) if searches else nullcontext():
            loss = self._loss(batch)
            if not math.isfinite(value := float(loss.detach())):
                raise TrainingError(
                    f"the loss became {value} in epoch {epoch + 1}, step {number}: lower the "
                    "learning rates"
                )
            loss.backward()
        if searches:
            step_architecture(tables)
        else:
            self._optimizer.step()
            self._rows.step()
        self._dense.zero_grad(set_to_none=True)
        after_step(tables, step=number, epoch=epoch, epochs=self.epochs, part=part)
        self.step_s.append(time.process_time() - start)

    def _loss(self, batch: ClickBatch) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(self.model(batch.sparse), batch.labels)
        penalty = self.model.tables.vectors.penalty()
        return loss if penalty is None else loss + penalty
