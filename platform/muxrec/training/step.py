"""One optimiser step."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from muxrec.data.batch import ItemBatch
from muxrec.data.known_pairs import KnownPairs
from muxrec.data.pairs import PairLoader, load_all_pairs
from muxrec.errors import TrainingError
from muxrec.log import event
from muxrec.losses.logq import log_inclusion
from muxrec.losses.objective import ContrastiveObjective
from muxrec.losses.relation import RELATIONS, candidates_in_batch
from muxrec.tables.build import Tables
from muxrec.tables.memory import FP32_BYTES, measured_training
from muxrec.tables.optimizer import TableOptimizer
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import (
    after_step,
    check_epochs,
    is_search_step,
    rows_kept,
    step_architecture,
)
from muxrec.towers.matryoshka import trained_widths
from muxrec.training.build import arrays_of, build_model
from muxrec.training.device import autocast, pick_device
from muxrec.training.job import Job
from muxrec.training.schedule import warmup_cosine
from muxrec.training.session import Session, dense_module, dense_optimizer

log = logging.getLogger("muxrec.training")

Positions = npt.NDArray[np.int64]


class StepResult(NamedTuple):
    """What one step did.

    Attributes:
        loss: The batch's loss before the update.
        items: Distinct items that were encoded.
    """

    loss: float
    items: int


class Stepper:
    """Model, data and optimisers of a job, and the step that joins them.

    A step is a function of the weights and of ``(epoch, step)`` alone: its batch comes from the
    stateless loader, and its dropouts from a generator seeded for it.

    Args:
        job: What to train on.

    Raises:
        TrainingError: Several processes and tables that are not sharded over them.
        DataError: Pair files are damaged.
    """

    def __init__(self, job: Job) -> None:
        recipe, ranks = job.recipe, job.ranks
        keys = job.prepared.arrays.item_keys
        self._job, self._train = job, recipe.train
        self._device = pick_device(recipe.train)
        self.loader = PairLoader(
            job.pair_files,
            keys,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        self._known = KnownPairs(load_all_pairs(job.pair_files, keys), len(keys))
        self.session = _open_session(job, self._known, self._device)
        self._arrays = arrays_of(job.prepared.arrays, self.session.model.tower.features)
        self.total = recipe.train.epochs * self.loader.steps_per_epoch

    @property
    def session(self) -> Session:
        """Model, objective and optimisers."""
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        self._session = session
        self._tables: TableOptimizer = session.tables.table_optimizer()

    def __call__(self, epoch: int, step: int) -> StepResult:
        """Train on one batch.

        Raises:
            TrainingError: The loss is not finite; no weight was changed by it.
        """
        number = epoch * self.loader.steps_per_epoch + step
        self._set_rates(number)
        torch.manual_seed(_step_seed(self._job.recipe.seed, epoch, step, self._job.ranks.rank))
        tables = self.session.tables
        searches = is_search_step(tables.lowering, number)
        with rows_kept(tables) if searches else nullcontext():
            loss, items = self._loss(epoch, step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {number} (epoch {epoch}, step {step}, "
                f"temperature {self.session.objective.temperature:.4g}): lower train.lr or "
                f"train.table_lr; earlier checkpoints are in {self._job.folder}"
            )
        if searches:
            self._search(loss)
        else:
            self._update(loss)
        part = (step + 1) / self.loader.steps_per_epoch
        after_step(tables, step=number, epoch=epoch, epochs=self._train.epochs, part=part)
        return StepResult(value, items)

    def _search(self, loss: Tensor) -> None:
        """Train the tables' architecture parameters and nothing else."""
        loss.backward()
        architecture = list(self.session.tables.vectors.architecture())
        self._job.ranks.average_gradients(architecture)
        step_architecture(self.session.tables)
        self.session.dense.zero_grad(set_to_none=True)

    def _loss(self, epoch: int, step: int) -> tuple[Tensor, int]:
        candidates = candidates_in_batch(self.loader.batch(epoch=epoch, step=step))
        relation = RELATIONS[self._job.recipe.objective.positives](candidates, self._known)
        batch = ItemBatch.from_arrays(
            self._arrays.take(self._evened(candidates.items)), self._device
        )
        with autocast(self._train, self._device):
            output = self.session.model(batch).first(len(candidates.items))
        items = torch.from_numpy(candidates.items).to(self._device)
        loss = self.session.objective(output, relation.to(self._device), items)
        penalty = self.session.tables.vectors.penalty()
        return loss if penalty is None else loss + penalty, len(candidates.items)

    def _evened(self, items: Positions) -> Positions:
        """``items`` filled up to the size of the largest rank's batch.

        Row-wise sharding exchanges equal batches only. The fillers' outputs are cut off, so they
        have no gradient; a row-wise Adagrad update by 0 changes nothing.
        """
        missing = self._job.ranks.largest(len(items)) - len(items)
        return np.concatenate([items, np.repeat(items[:1], missing)]) if missing else items

    def _update(self, loss: Tensor) -> None:
        loss.backward()
        self._job.ranks.average_gradients(self.session.dense.parameters())
        self.session.optimizer.step()
        self._tables.step()
        self.session.objective.clamp()
        self.session.dense.zero_grad(set_to_none=True)

    def _set_rates(self, number: int) -> None:
        factor = warmup_cosine(number, total=self.total, warmup=self._train.warmup)
        for group in self.session.optimizer.param_groups:
            group["lr"] = self._train.lr * factor
        self._tables.set_lr(self._train.table_lr * factor)


def _open_session(job: Job, known: KnownPairs, device: torch.device) -> Session:
    recipe = job.recipe
    model = build_model(recipe, job.prepared, engine=recipe.train.engine, device=device)
    if job.ranks.world_size > 1 and isinstance(model.tables, ReferenceTables):
        raise TrainingError(
            f"{job.ranks.world_size} processes need tables on the torchrec engine, which shards "
            "them: install the extras train and cpu (or gpu) and set train.engine to torchrec, or "
            "run one process"
        )
    tables = cast(Tables, model.tables)
    check_epochs(tables.lowering, recipe.train.epochs)
    objective = ContrastiveObjective(
        recipe.objective,
        widths=trained_widths(recipe.tower),
        log_inclusion=log_inclusion(known.frequency, recipe.train.batch_size),
    ).to(device)
    dense, architecture = dense_module(model, objective), tables.vectors.architecture()
    optimizer = dense_optimizer(dense, recipe.train, architecture=architecture)
    _log_memory(dense, tables)
    return Session(model, objective, optimizer, job.ranks, dict(job.identity))


def _log_memory(dense: nn.Module, tables: Tables) -> None:
    """What this process holds from now on: each dense weight with its gradient and two moments."""
    numbers = sum(p.numel() for p in dense.parameters() if p.requires_grad)
    held, found = measured_training(tables), 4 * FP32_BYTES * numbers
    rows = held.rows + held.state + held.maps + held.dictionary
    total = {"table_bytes": rows, "total_bytes": rows + found}
    log.info(event("memory", dense_parameters=numbers, dense_bytes=found, **total))


def _step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """A generator seed of its own for every step and rank: resuming needs no generator state."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0])
