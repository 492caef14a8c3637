"""From a recipe and prepared items to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from muxrec.features.arrays import ItemArrays
from muxrec.model import ItemModel
from muxrec.recipe.model import Recipe
from muxrec.spec.features import FeatureSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.build import Engine, Tables, build_tables
from muxrec.tables.lowering import Place
from muxrec.towers.projection import is_picture
from muxrec.towers.tower import ItemTower, used_features


class PreparedItems(Protocol):
    """What training needs of the prepared items."""

    @property
    def arrays(self) -> ItemArrays:
        """Encoded features of the whole catalogue."""
        ...

    @property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Known ids of features on full tables."""
        ...

    @property
    def known_ids(self) -> npt.NDArray[np.int64]:
        """Item keys in training pairs, sorted."""
        ...


def arrays_of(arrays: ItemArrays, features: tuple[FeatureSpec, ...]) -> ItemArrays:
    """``arrays`` with the given features alone, so that no batch carries what nobody reads."""
    names = {feature.name for feature in features}
    return ItemArrays(
        arrays.item_keys,
        {name: bags for name, bags in arrays.sparse.items() if name in names},
        {name: dense for name, dense in arrays.dense.items() if name in names},
    )


def build_model(
    recipe: Recipe,
    prepared: PreparedItems,
    *,
    engine: Engine,
    device: torch.device | str = "cpu",
    places: Mapping[str, Place] | None = None,
) -> ItemModel:
    """A new model with the recipe's seed; the same start for every engine and number of ranks.

    Standardisation of dense inputs is taken from the items in training pairs.

    Args:
        recipe: The run's recipe, or a variant's.
        prepared: Prepared items of the whole catalogue.
        engine: Engine of the tables.
        device: Where the model lives.
        places: Table name -> where its training is, for stages after the first.

    Raises:
        TrainingError: ``tower.modalities`` names a modality without a feature.
    """
    features = used_features(recipe.features, recipe.tower.modalities)
    tables = build_item_tables(recipe, prepared, engine=engine, device=device, places=places)
    widths = {**cast(Tables, tables).widths, **_dense_widths(features, prepared.arrays)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        tower = ItemTower(recipe.tower, features, widths=widths)
    tower.fit_inputs(_training_items(prepared, features))
    return ItemModel(cast(nn.Module, tables), tower.to(device))


def build_item_tables(
    recipe: Recipe,
    prepared: PreparedItems,
    *,
    engine: Engine,
    device: torch.device | str,
    places: Mapping[str, Place] | None,
) -> nn.Module:
    """The tables under the recipe's tower, where their training is; see :func:`build_model`."""
    return build_tables(
        used_features(recipe.features, recipe.tower.modalities),
        recipe.tables,
        vocabularies=prepared.vocabularies,
        engine=engine,
        seed=recipe.seed,
        lr=recipe.train.table_lr,
        device=device,
        places=places,
    )


def _dense_widths(features: tuple[FeatureSpec, ...], arrays: ItemArrays) -> dict[str, int]:
    dense = [f.name for f in features if not f.is_sparse and not is_picture(f)]
    return {name: arrays.dense[name].values.shape[1] for name in dense}


def _training_items(prepared: PreparedItems, features: tuple[FeatureSpec, ...]) -> ItemArrays:
    is_known = np.isin(prepared.arrays.item_keys, prepared.known_ids)
    return arrays_of(prepared.arrays, features).take(np.flatnonzero(is_known))
