"""One training of an item tower for the benchmark, by the same loop as ``muxrec train``."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from muxrec.bench.compression.i2i_data import ItemData, SaltedItems
from muxrec.bench.compression.schedule import OnEpoch
from muxrec.model import ItemModel
from muxrec.recipe.model import Recipe
from muxrec.tables.build import Tables
from muxrec.tables.lowering import Lowering
from muxrec.tables.memory import training_bytes
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import physical_names, trained_maps
from muxrec.towers.tower import ItemTower
from muxrec.training.job import Job
from muxrec.training.loop import fit
from muxrec.training.validation import Validation

KS = (10, 100)


@dataclass(frozen=True)
class TrainedTower:
    """A finished training.

    Attributes:
        tables: The tables as they were trained.
        tower: The tower over them.
        items: What it was trained on.
        epochs: Epochs trained.
        best_epoch: Epoch whose weights were kept, from 1.
        step_ms: Median process CPU time of a step with its batch, milliseconds.
        parameters: Trained numbers of the item table at the end, rows and maps.
        training_bytes: Most bytes that the item table took in any stage.
    """

    tables: Tables
    tower: ItemTower
    items: SaltedItems
    epochs: int
    best_epoch: int
    step_ms: float
    parameters: int
    training_bytes: int


@dataclass(frozen=True)
class WatchedValidation(Validation):
    """Validation that also looks how large a table is in the stage that it finds.

    Attributes:
        table: The table.
        sizes: Its bytes in training at every call.
    """

    table: str = ""
    sizes: list[int] = field(default_factory=list[int])

    def __call__(self, model: ItemModel) -> dict[str, float]:
        """Every metric's mean, by name."""
        self.sizes.append(table_training_bytes(cast(Tables, model.tables), self.table))
        return super().__call__(model)


class StepClock:
    """Takes the reports of a training loop that reports every step.

    Args:
        metric: Name of the deciding metric in them.
        on_epoch: Called after every epoch.
    """

    def __init__(self, metric: str, on_epoch: OnEpoch) -> None:
        self.step_s: list[float] = []
        self._metric, self._on_epoch, self._epoch = f"validation_{metric}", on_epoch, 0
        self._before: tuple[int, float] | None = None

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """One report."""
        if self._metric in values:
            self._epoch, self._before = self._epoch + 1, None
            self._on_epoch(self._epoch, values[self._metric])
            return
        now = time.process_time()
        if self._before is not None and step == self._before[0] + 1:
            self.step_s.append(now - self._before[1])
        self._before = (step, now)

    @property
    def step_ms(self) -> float:
        """Median over steps that follow another one of their epoch; 0 where there is none."""
        return 1e3 * statistics.median(self.step_s or [0.0])


def train_tower(
    recipe: Recipe, items: SaltedItems, data: ItemData, on_epoch: OnEpoch
) -> TrainedTower:
    """Train the tower of ``recipe``; the loop's files lie in a folder that is removed.

    Raises:
        TrainingError: The loss became NaN or infinite.
        RecipeError: A budget cannot be met, or there are fewer epochs than stages.
    """
    table = data.full.name
    validation = WatchedValidation(items.arrays, data.validation, KS, table)
    clock = StepClock(validation.metric, on_epoch)
    with TemporaryDirectory(prefix="muxrec-bench-") as folder:
        job = Job(
            recipe=recipe,
            prepared=items,
            pair_files=data.pair_files,
            folder=Path(folder) / "run",
            dataset=data.digest,
            validation=validation,
            report=clock,
        )
        trained = fit(job)
    tables, progress = trained.session.tables, trained.progress
    return TrainedTower(
        tables,
        trained.session.model.tower,
        items,
        epochs=progress.epoch,
        best_epoch=round(progress.epoch * trained.checkpoint / max(1, progress.steps)),
        step_ms=clock.step_ms,
        parameters=_parameters(tables, table),
        training_bytes=max(validation.sizes),
    )


def table_training_bytes(tables: Tables, table: str) -> int:
    """Bytes of one declared table in its stage: numbers, optimiser state, maps and dictionary."""
    lowering = tables.lowering
    lowered = lowering.lowered[_place(lowering, table)]
    # The fused kernels hold rows of a multiple of four numbers, plain torch does not.
    is_fused = not isinstance(tables, ReferenceTables)
    is_aligned = is_fused and all(physical.is_fused for physical in lowered.tables)
    return training_bytes(lowered, is_aligned=is_aligned).total


def _parameters(tables: Tables, table: str) -> int:
    names, local = physical_names(tables.lowering, [table]), tables.local_tables()
    declared = tables.lowering.declared[_place(tables.lowering, table)]
    maps = trained_maps(tables)
    own = [maps[reader.name] for reader in declared.readers if reader.name in maps]
    numbers = sum(rows.weight.numel() for name, rows in local.items() if name in names)
    return numbers + sum(p.numel() for each in own for p in each.parameters())


def _place(lowering: Lowering, table: str) -> int:
    return [each.table.name for each in lowering.declared].index(table)
