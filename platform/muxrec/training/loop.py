"""The training loop: one for every tower, objective, engine and number of processes."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from muxrec.log import event
from muxrec.tables.staging import is_in_last_stages, stages_due
from muxrec.training.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    Progress,
    checkpoint_folder,
    newest_checkpoint,
    open_checkpoint,
    prune_checkpoints,
    remove_leftovers,
)
from muxrec.training.history import History
from muxrec.training.job import Job
from muxrec.training.session import Session, load_weights
from muxrec.training.stages import at_places, enter_stages
from muxrec.training.step import Stepper, StepResult

log = logging.getLogger("muxrec.training")


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        session: Model and optimisers, with the weights of ``checkpoint``.
        progress: Where it ended.
        checkpoint: Steps of the checkpoint with the final weights: the last one, or the best one
            where early stopping is on.
    """

    session: Session
    progress: Progress
    checkpoint: int


def fit(job: Job, *, resume: bool = True) -> Trained:
    """Train to the end and return the model; files go to ``job.folder``.

    A training that was killed at any moment goes on from its newest intact checkpoint and ends with
    the same weights, bit for bit, as one that was not (same machine, threads and ranks).

    Args:
        job: What to train on.
        resume: Go on from checkpoints of the same job; without it they are removed. Checkpoints of
            another job are removed with a warning.

    Raises:
        TrainingError: The loss is not finite, or the tables' engine cannot run this.
        DataError: Pair files are damaged.
    """
    with _threads(job.recipe.train.threads), torch.random.fork_rng():
        loop = _Loop(job)
        progress = loop.start(resume=resume)
        while not progress.is_done:
            progress = loop.epoch(progress)
        return loop.finish(progress)


class _Loop:
    """The state of ``fit`` between its steps."""

    def __init__(self, job: Job) -> None:
        self.job, self.train = job, job.recipe.train
        self.step = Stepper(job)
        self.steps_per_epoch = self.step.loader.steps_per_epoch
        self.watch = _Watch()

    @property
    def session(self) -> Session:
        """Model and optimisers as they are now."""
        return self.step.session

    def start(self, *, resume: bool) -> Progress:
        """The progress to go on from, weights and history brought to it."""
        checkpoint = self._checkpoint(resume=resume)
        if checkpoint is not None:
            self.step.session = at_places(self.session, checkpoint, self.job)
        progress = self.session.restore(checkpoint) if checkpoint else Progress()
        if self.job.ranks.is_first:
            self.job.folder.mkdir(parents=True, exist_ok=True)
            self.history = History(self.job.folder, step=progress.steps)
        pairs = self.step.loader.pairs
        log.info(event("training", steps=self.step.total, start=progress.steps, pairs=pairs))
        if self.train.epochs == 0:
            progress = replace(progress, is_done=True)
            self._save(progress)
        return progress

    def _checkpoint(self, *, resume: bool) -> Checkpoint | None:
        """The checkpoint to go on from, chosen by the first rank for all."""
        folder, steps = self.job.folder, -1
        if self.job.ranks.is_first:
            remove_leftovers(folder)
            found = newest_checkpoint(folder) if resume else None
            if found is not None and not self._is_mine(found):
                log.warning(event("checkpoints_of_another_job", folder=folder, action="remove"))
                found = None
            if found is None:
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            else:
                steps = found.progress.steps
        steps = self.job.ranks.from_first(steps)
        return None if steps < 0 else open_checkpoint(checkpoint_folder(folder, steps))

    def _is_mine(self, checkpoint: Checkpoint) -> bool:
        mine = self.session.identity
        return {name: checkpoint.manifest.get(name) for name in mine} == mine

    def epoch(self, progress: Progress) -> Progress:
        """Train the rest of an epoch, validate, and write a checkpoint."""
        self._enter(progress)
        self.session.model.train()
        # None lets tqdm show itself on a terminal only.
        hide = None if self.job.ranks.is_first else True
        steps = range(progress.step, self.steps_per_epoch)
        with tqdm(steps, desc=f"epoch {progress.epoch + 1}", disable=hide, leave=False) as bar:
            for step in bar:
                result = self.step(progress.epoch, step)
                progress = replace(progress, step=step + 1, steps=progress.steps + 1)
                self._log_step(progress, result)
                bar.set_postfix(loss=f"{result.loss:.3f}")
                if self._is_due(progress):
                    self._save(progress)
        ended = self._validate(replace(progress, epoch=progress.epoch + 1, step=0))
        self._save(ended)
        return ended

    def _enter(self, progress: Progress) -> None:
        """Bring every table to the stage that the epoch belongs to."""
        lowering, epochs = self.session.tables.lowering, self.train.epochs
        while due := stages_due(lowering, epoch=progress.epoch, epochs=epochs):
            ended = open_checkpoint(checkpoint_folder(self.job.folder, progress.steps))
            self.step.session = enter_stages(self.session, due, ended, self.job)
            lowering = self.session.tables.lowering

    def _is_due(self, progress: Progress) -> bool:
        every, is_last = self.train.checkpoint_every, progress.step == self.steps_per_epoch
        return every > 0 and progress.steps % every == 0 and not is_last

    def _log_step(self, progress: Progress, result: StepResult) -> None:
        self.watch.count(result.items)
        if not self.job.ranks.is_first or progress.steps % max(1, self.train.log_every):
            return
        values = {
            "loss": result.loss,
            "temperature": self.session.objective.temperature,
            "lr": self.session.optimizer.param_groups[0]["lr"],
            "items_per_s": self.watch.rate(),
        }
        self.history.add(step=progress.steps, epoch=progress.epoch, **values)
        self.job.report(progress.steps, values)

    def _validate(self, progress: Progress) -> Progress:
        is_over = progress.epoch >= self.train.epochs
        if self.job.validation is None:
            return replace(progress, is_done=is_over)
        metric, means = self.job.validation.metric, self.job.validation(self.session.model)
        if self.job.ranks.is_first:
            values = {f"validation_{name}": value for name, value in means.items()}
            self.history.add(step=progress.steps, epoch=progress.epoch, **values)
            self.job.report(progress.steps, values)
        log.info(event("epoch", n=progress.epoch, **{metric: means[metric]}))
        if not is_in_last_stages(self.session.tables.lowering):
            return replace(progress, is_done=is_over)
        progress = progress.judged(means[metric])
        is_stuck = 0 < self.train.early_stop <= progress.epochs_since_best
        return replace(progress, is_done=is_over or is_stuck)

    def _save(self, progress: Progress) -> None:
        self.session.save(self.job.folder, progress)
        if self.job.ranks.is_first:
            best = progress.best_steps
            prune_checkpoints(self.job.folder, keep=self.train.keep, best_steps=best)

    def finish(self, progress: Progress) -> Trained:
        """The outcome, with the best epoch's weights where early stopping is on."""
        is_best = bool(self.train.early_stop) and progress.best is not None
        final = progress.best_steps if is_best else progress.steps
        if final != progress.steps:
            best = open_checkpoint(checkpoint_folder(self.job.folder, final))
            self.step.session = at_places(self.session, best, self.job)
            load_weights(best, self.session.dense, self.session.tables)
        return Trained(self.session, progress, final)


class _Watch:
    """Items per second since the last time it was asked."""

    def __init__(self) -> None:
        self._items, self._since = 0, time.perf_counter()

    def count(self, items: int) -> None:
        self._items += items

    def rate(self) -> float:
        now = time.perf_counter()
        rate = self._items / max(now - self._since, 1e-9)
        self._items, self._since = 0, now
        return rate


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
