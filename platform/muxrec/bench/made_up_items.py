"""Made-up encoded items and a model for them, of the size of a small shop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from muxrec.features.arrays import Dense, ItemArrays, Jagged
from muxrec.model import ItemModel
from muxrec.recipe.model import Data, Recipe, Source, Tower
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.training.build import build_model

TEXT_WIDTH = 384
FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="shared", probes=2),
    FeatureSpec("plot", "vector", ("plot",), "text", width=TEXT_WIDTH),
    FeatureSpec("tags", "bag", ("tags",), "attributes", table="shared", probes=2, max_length=8),
)


@dataclass(frozen=True)
class MadeUpItems:
    """Encoded items with what a model needs besides.

    Attributes:
        arrays: Items, C of them.
        vocabularies: Known ids of features on full tables.
        known_ids: All item keys, sorted.
    """

    arrays: ItemArrays
    vocabularies: dict[str, Vocabulary]
    known_ids: npt.NDArray[np.int64]


def made_up_items(count: int, *, seed: int = 0) -> MadeUpItems:
    """``count`` items: an id, 3 to 20 words, a sentence vector (10 % lack it), 0 to 4 tags."""
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.choice(2**40, size=count, replace=False)).astype(np.int64)
    plots = rng.normal(size=(count, TEXT_WIDTH)).astype(np.float32)
    present = rng.random(count) > 0.1
    arrays = ItemArrays(
        keys,
        {
            "item": Jagged(keys, np.arange(count + 1)),
            "words": _bags(rng, rng.integers(3, 21, size=count), 20_000),
            "tags": _bags(rng, rng.integers(0, 5, size=count), 300),
        },
        {"plot": Dense(plots * present[:, None], present)},
    )
    return MadeUpItems(arrays, {"item": build_vocabulary("item", keys)}, keys)


def made_up_model(
    items: MadeUpItems, *, width: int, rows: int, serve_dtype: Literal["fp32", "int8"]
) -> ItemModel:
    """An untrained model of the items: time and size do not depend on what was learned."""
    tables = (
        TableSpec("items", "full", 32, serve_dtype=serve_dtype),
        TableSpec("shared", "unified", 32, rows=rows, serve_dtype=serve_dtype),
    )
    recipe = Recipe("bench", Data(Source("generic")), FEATURES, tables, tower=Tower(width=width))
    return build_model(recipe, items, engine="reference").eval()


def _bags(rng: np.random.Generator, lengths: npt.NDArray[np.int64], ids: int) -> Jagged:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Jagged(rng.integers(0, ids, size=offsets[-1]), offsets)
