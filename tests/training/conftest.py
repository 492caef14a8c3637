"""Small catalogues whose right answer is known: planted clusters of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from muxrec.evaluation.relevance import Relevance
from muxrec.features.arrays import Dense, ItemArrays, Jagged
from muxrec.recipe.model import Data, Objective, Recipe, Source, Tower, Train
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.training.job import Job
from muxrec.training.validation import Validation

torch.set_num_threads(1)

CLUSTERS, PER_CLUSTER = 12, 8

FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="shared", probes=2),
    FeatureSpec("genre", "bag", ("genres",), "attributes", table="shared"),
    FeatureSpec("sentence", "text", ("title",), "text", encoder="package:none"),
    FeatureSpec("look", "image", ("image_path",), "image", encoder="descriptor"),
    FeatureSpec("pixels", "image", ("image_path",), "image", encoder="conv", image_size=16),
)
TABLES = (TableSpec("items", "full", 16), TableSpec("shared", "unified", 8, rows=512))


def _bags(rng: np.random.Generator, lists: list[list[int]]) -> Jagged:
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    return Jagged(np.array([i for x in lists for i in x], dtype=np.int64), offsets)


def _dense(rng: np.random.Generator, centres: np.ndarray, cluster: np.ndarray) -> Dense:
    values = centres[cluster] + 0.3 * rng.standard_normal((len(cluster), centres.shape[1]))
    present = rng.random(len(cluster)) > 0.15
    return Dense((values * present[:, None]).astype(np.float32), present)


def make_catalogue(seed: int = 0) -> tuple[ItemArrays, np.ndarray]:
    """96 items of 12 clusters; every modality tells the cluster, 15 % of dense values miss."""
    rng = np.random.default_rng(seed)
    count = CLUSTERS * PER_CLUSTER
    cluster = np.repeat(np.arange(CLUSTERS), PER_CLUSTER)
    keys = np.arange(count, dtype=np.int64) * 7 + 100
    words = [[int(c * 10 + w) for w in rng.integers(0, 6, 3)] for c in cluster]
    colours = rng.integers(0, 255, (CLUSTERS, 3, 1, 1))
    pictures = np.clip(colours[cluster] + rng.integers(-20, 20, (count, 3, 16, 16)), 0, 255)
    shown = rng.random(count) > 0.15
    arrays = ItemArrays(
        keys,
        {
            "item": _bags(rng, [[int(k)] for k in keys]),
            "words": _bags(rng, words),
            "genre": _bags(rng, [[int(c) % 4] if c % 3 else [] for c in cluster]),
        },
        {
            "sentence": _dense(rng, rng.standard_normal((CLUSTERS, 24)), cluster),
            "look": _dense(rng, rng.standard_normal((CLUSTERS, 10)), cluster),
            "pixels": Dense((pictures * shown[:, None, None, None]).astype(np.uint8), shown),
        },
    )
    return arrays, cluster


def write_pairs(folder: Path, keys: np.ndarray, cluster: np.ndarray, *, rows: int = 100) -> Path:
    """All pairs inside clusters, both directions, in row groups of ``rows``."""
    same = (cluster[:, None] == cluster[None, :]) & ~np.eye(len(cluster), dtype=bool)
    a, b = np.nonzero(same)
    score = np.random.default_rng(5).uniform(0.2, 1.0, len(a))
    ones = np.ones(len(a))
    table = pa.table(
        {
            "item_a": keys[a],
            "item_b": keys[b],
            "count": ones.astype(np.int64),
            "weight": ones,
            "score": score,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "part-00000.parquet"
    pq.write_table(table, path, row_group_size=rows, write_page_checksum=True)
    return path


@dataclass(frozen=True)
class Planted:
    """Prepared items of the planted catalogue."""

    arrays: ItemArrays
    vocabularies: dict[str, Vocabulary]
    known_ids: np.ndarray


def planted(seed: int = 0) -> Planted:
    arrays, _ = make_catalogue(seed)
    vocabulary = build_vocabulary("item", arrays.sparse["item"].ids)
    return Planted(arrays, {"item": vocabulary}, arrays.item_keys)


def make_recipe(
    *, tower: dict[str, Any] | None = None, objective: dict[str, Any] | None = None, **train: Any
) -> Recipe:
    """A recipe for the planted catalogue that trains in about a second."""
    return Recipe(
        "planted",
        Data(Source("generic")),
        FEATURES,
        TABLES,
        tower=Tower(**{"width": 16, **(tower or {})}),
        objective=Objective(**{"temperature": 0.1, **(objective or {})}),
        train=Train(**{"engine": "reference", "epochs": 3, "batch_size": 64, "lr": 5e-3, **train}),
    )


def make_job(folder: Path, recipe: Recipe, *, validate: bool = False, **changes: Any) -> Job:
    """A job on the planted catalogue, its pairs written below ``folder``."""
    arrays, cluster = make_catalogue()
    files = [write_pairs(folder / "pairs", arrays.item_keys, cluster)]
    prepared = planted()
    validation = Validation(arrays, mates(cluster), (5, 10)) if validate else None
    job = Job(recipe, prepared, files, folder / "run", "digest", validation=validation)
    return replace(job, **changes)


def mates(cluster: np.ndarray) -> Relevance:
    """Every item's cluster mates, the right answer of the planted catalogue."""
    same = (cluster[:, None] == cluster[None, :]) & ~np.eye(len(cluster), dtype=bool)
    queries, items = np.nonzero(same)
    offsets = np.concatenate([[0], np.cumsum(same.sum(axis=1))]).astype(np.int64)
    return Relevance(np.unique(queries), offsets, items.astype(np.int64))


@pytest.fixture
def relevance() -> Relevance:
    return mates(make_catalogue()[1])


@pytest.fixture
def recipe_of() -> Callable[..., Recipe]:
    return make_recipe


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., Job]:
    def build(recipe: Recipe, **changes: Any) -> Job:
        return make_job(tmp_path, recipe, **changes)

    return build


@pytest.fixture
def catalogue() -> tuple[ItemArrays, np.ndarray]:
    return make_catalogue()


@pytest.fixture
def features() -> tuple[FeatureSpec, ...]:
    return FEATURES


@pytest.fixture
def tables() -> tuple[TableSpec, ...]:
    return TABLES


@pytest.fixture
def pair_file(tmp_path: Path, catalogue: tuple[ItemArrays, np.ndarray]) -> Path:
    arrays, cluster = catalogue
    return write_pairs(tmp_path / "pairs", arrays.item_keys, cluster)
