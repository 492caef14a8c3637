"""The item-to-item task: one cell of a sweep, from a method at a budget to a measured result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from muxrec import __version__
from muxrec.bench.compression.contestants import Contestant, contestant
from muxrec.bench.compression.i2i_data import ItemData, SaltedItems
from muxrec.bench.compression.i2i_facts import item_facts, relevance_rule, split_rule
from muxrec.bench.compression.i2i_quality import quality_of
from muxrec.bench.compression.i2i_training import KS, TrainedTower, train_tower
from muxrec.bench.compression.record import Result
from muxrec.bench.compression.schedule import OnEpoch
from muxrec.bench.compression.serving import check_format, frozen_tables, only, served_tables
from muxrec.bench.compression.shared import SharedTrainings
from muxrec.bench.compression.sweep import Cell
from muxrec.errors import RecipeError
from muxrec.model import ItemModel
from muxrec.recipe.load import recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.spec.features import check_features
from muxrec.spec.hashing import HASH_VERSION
from muxrec.tables.memory import measured_serving
from muxrec.training.encode import encode_catalogue
from muxrec.training.job import SECTIONS

METRIC = "ndcg@10"


@dataclass(frozen=True)
class ItemTask:
    """Item-to-item retrieval with a recipe's tower; follows ``sweep.Task``.

    Attributes:
        data: The recipe and its dataset.
    """

    data: ItemData
    _trainings: SharedTrainings[TrainedTower] = field(
        default_factory=SharedTrainings, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """Name of the task."""
        return "i2i"

    @property
    def dataset(self) -> str:
        """Name of the recipe."""
        return self.data.recipe.name

    def identity(self) -> dict[str, Any]:
        """All that decides a result besides the cell."""
        recipe = self.data.recipe
        return {
            "task": self.name,
            "data": self.dataset,
            "data_digest": self.data.digest,
            "engine": recipe.train.engine,
            "muxrec": __version__,
            "hash": HASH_VERSION,
            "recipe": recipe_hash(recipe, *SECTIONS),
            "full": asdict(self.data.full),
            "min_events": recipe.evaluation.min_events,
            "max_relevant": recipe.evaluation.max_relevant,
            "ks": list(KS),
        }

    def facts(self) -> dict[str, str]:
        """What the results rest on."""
        return item_facts(self.data)

    def run(self, cell: Cell, settings: Mapping[str, Any], on_epoch: OnEpoch) -> Result:
        """Train and measure one cell, on one thread.

        Raises:
            RecipeError: The method cannot have the cell's budget or format.
            TrainingError: The loss became NaN or infinite, or a format cannot hold the rows.
        """
        data, entrant = self.data, contestant(cell.method)
        if entrant.serve != "fp32":
            recipe, items = self.cell_recipe(entrant, cell)
            table = next(t for t in recipe.tables if t.name == data.full.name)
            check_format(recipe.features, table, items.vocabularies)
        trained = self._trainings(cell, lambda: self._train(entrant.trained, cell, on_epoch))
        override = None if entrant == entrant.trained else data.full.name
        frozen = frozen_tables(trained.tables, table=override, serve=entrant.serve)
        model = ItemModel(served_tables(frozen), trained.tower).eval()
        vectors, _ = encode_catalogue(model, trained.items.arrays)
        test = quality_of(vectors, data.test, ks=KS, is_cold=data.is_cold)
        validation = quality_of(vectors, data.validation, ks=KS, is_cold=data.is_cold)
        serving = measured_serving(served_tables(only(frozen, data.full.name)))
        return Result(
            task=self.name,
            data=self.dataset,
            method=cell.method,
            budget=cell.budget,
            seed=cell.seed,
            metric=METRIC,
            quality=test.pop(METRIC),
            validation=validation[METRIC],
            others=test,
            optimizer=cell.rate.optimizer,
            table_lr=cell.rate.lr,
            epochs=trained.epochs,
            best_epoch=trained.best_epoch,
            step_ms=trained.step_ms,
            width=data.full.width,
            parameters=trained.parameters,
            training_bytes=trained.training_bytes,
            serving_bytes=serving.total,
            dictionary_bytes=serving.dictionary,
            label_rule=relevance_rule(data),
            split_rule=split_rule(data),
            settings=settings,
        )

    def _train(self, entrant: Contestant, cell: Cell, on_epoch: OnEpoch) -> TrainedTower:
        recipe, items = self.cell_recipe(entrant, cell)
        return train_tower(recipe, items, self.data, on_epoch)

    def cell_recipe(self, entrant: Contestant, cell: Cell) -> tuple[Recipe, SaltedItems]:
        """The recipe with the contestant's table, rate and seed, and its items.

        Raises:
            RecipeError: The method cannot have this budget, width or number of probes.
        """
        base, full = self.data.recipe, self.data.full
        features, items = self.data.salted(cell.seed)
        features = tuple(
            replace(f, probes=entrant.probes) if f.table == full.name else f for f in features
        )
        made = entrant.table(full, budget=cell.budget)
        tables = tuple(
            replace(made if table.name == full.name else table, optimizer=cell.rate.optimizer)
            for table in base.tables
        )
        if faults := check_features(features, tables):
            raise RecipeError(f"{entrant.name} at {cell.budget:g}: {faults[0]}")
        train = replace(base.train, table_lr=cell.rate.lr)
        return replace(
            base, features=features, tables=tables, train=train, seed=base.seed + cell.seed
        ), items
