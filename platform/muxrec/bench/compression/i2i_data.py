"""What the item-to-item task is measured on: a recipe's dataset, prepared once for all cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError, RecipeError
from muxrec.evaluation.relevance import CO_ENGAGEMENT, Relevance, build_relevance
from muxrec.features.arrays import ItemArrays
from muxrec.features.prepare import Prepared, prepare_items
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import Int64Array
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.towers.tower import used_features


@dataclass(frozen=True)
class SaltedItems:
    """Prepared items under feature names of one seed; follows ``PreparedItems`` of training.

    Attributes:
        arrays: Encoded features of the whole catalogue.
        vocabularies: Known ids of the sparse features.
        known_ids: Item keys in training pairs, sorted.
    """

    arrays: ItemArrays
    vocabularies: Mapping[str, Vocabulary]
    known_ids: Int64Array


@dataclass(frozen=True)
class ItemData:
    """An item-to-item task.

    Attributes:
        recipe: The recipe, with the features and tables of the tower in use alone.
        full: A full table in place of the recipe's table of item ids, as wide as its vectors.
        digest: Digest of the dataset snapshot.
        pair_files: Parquet files of the training pairs.
        prepared: The catalogue, encoded.
        validation: Co-engagement of the validation period.
        test: Co-engagement of the test period.
        is_cold: Bool ``[C]``, items without a training pair.
    """

    recipe: Recipe
    full: TableSpec
    digest: str
    pair_files: tuple[Path, ...]
    prepared: Prepared
    validation: Relevance
    test: Relevance
    is_cold: npt.NDArray[np.bool_]

    def salted(self, seed: int) -> tuple[tuple[FeatureSpec, ...], SaltedItems]:
        """Features and items under names of this seed, so that every seed has another hash."""
        names = {f.name: f"{f.name}~{seed}" for f in self.recipe.features if f.is_sparse}
        features = tuple(replace(f, name=names.get(f.name, f.name)) for f in self.recipe.features)
        arrays, words = self.prepared.arrays, self.prepared.vocabularies
        sparse = {names[name]: bags for name, bags in arrays.sparse.items()}
        again = {
            names[name]: build_vocabulary(names[name], known.ids(), counts=known.counts)
            for name, known in words.items()
        }
        items = ItemArrays(arrays.item_keys, sparse, arrays.dense)
        return features, SaltedItems(items, again, self.prepared.known_ids)


def load_item_data(recipe: Recipe, *, is_ids_only: bool = True) -> ItemData:
    """The task of a recipe, read from the dataset in its output folder.

    Args:
        recipe: The recipe.
        is_ids_only: Whether the tower sees ids alone; otherwise it has the recipe's modalities.

    Raises:
        DataError: The dataset was not built, or a period has no queries.
        RecipeError: Ids read no table, or several.
    """
    output = output_folder(recipe)
    snapshot = Snapshot.open(output / "dataset")
    own = restricted(recipe, is_ids_only=is_ids_only)
    full = full_item_table(own)
    prepared = prepare_items(own, snapshot, cache=output / "cache")
    truths = {
        split: build_relevance(snapshot, prepared.table, split=split, recipe=recipe)[CO_ENGAGEMENT]
        for split in ("validation", "test")
    }
    for split, found in truths.items():
        if not len(found):
            raise DataError(
                f"{output}: the {split} period has no queries: lower evaluation.min_events or give "
                "it a larger share in data.split"
            )
    return ItemData(
        own,
        full,
        snapshot.digest,
        tuple(snapshot.pair_files("train")),
        prepared,
        **truths,
        is_cold=prepared.table["is_cold"].to_numpy().astype(bool),
    )


def restricted(recipe: Recipe, *, is_ids_only: bool) -> Recipe:
    """The recipe with what its tower reads alone, trained on one thread of the CPU."""
    modalities = ("id",) if is_ids_only else recipe.tower.modalities
    features = used_features(recipe.features, modalities)
    read = {feature.table for feature in features}
    return replace(
        recipe,
        features=features,
        tables=tuple(table for table in recipe.tables if table.name in read),
        tower=replace(recipe.tower, modalities=modalities),
        train=replace(
            recipe.train,
            device="cpu",
            precision="fp32",
            threads=1,
            checkpoint_every=0,
            log_every=1,
            keep=1,
        ),
    )


def full_item_table(recipe: Recipe) -> TableSpec:
    """A full table in place of the one that the id features read, as wide as their vectors.

    Raises:
        RecipeError: There is no such table, there are several, or vectors on it differ in width.
    """
    named = {f.table for f in recipe.features if f.modality == "id" and f.is_sparse}
    tables = [table for table in recipe.tables if table.name in named]
    if len(tables) != 1:
        raise RecipeError(
            f"{recipe.name}: expected one table that the features of modality id read, got "
            f"{len(tables)}: the compression benchmark replaces that one"
        )
    table = tables[0]
    has_probes = METHOD_SPECS[table.method].has_probes
    readers = [f for f in recipe.features if f.table == table.name]
    widths = {table.width * (f.probes if has_probes else 1) for f in readers}
    if len(widths) != 1:
        raise RecipeError(
            f"{recipe.name}: vectors on table {table.name} are {sorted(widths)} wide: give its "
            "features the same number of probes"
        )
    return TableSpec(table.name, "full", widths.pop(), init=table.init)
