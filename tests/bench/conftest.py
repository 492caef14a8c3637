"""Tasks whose right answer is known: users who click on everything, items that go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muxrec.bench.compression.clicks import ClickData, random_parts
from muxrec.bench.compression.i2i_data import ItemData, load_item_data
from muxrec.bench.compression.settings import ClickSettings
from muxrec.bench.compression.train import Schedule
from muxrec.data.snapshot import EVENT_SCHEMA, FORMAT_VERSION, KIND, SPLITS, point_to
from muxrec.features.arrays import Jagged
from muxrec.manifest import published_folder, seal
from muxrec.recipe.model import Data, Evaluation, Recipe, Source, Tower, Train
from muxrec.spec.features import FeatureSpec, TableSpec

CLUSTERS, PER_CLUSTER, COLD = 6, 10, 6
COUNT = CLUSTERS * PER_CLUSTER
FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="words"),
)
TABLES = (TableSpec("items", "full", 16), TableSpec("words", "hashed", 8, rows=64))


def recipe_at(output: Path) -> Recipe:
    """A recipe whose towers train in a second."""
    return Recipe(
        "clusters",
        Data(Source("generic")),
        FEATURES,
        TABLES,
        output=str(output),
        tower=Tower(width=16, dropout=0.0),
        train=Train(engine="reference", epochs=3, batch_size=64, lr=1e-2, threads=1),
        evaluation=Evaluation(min_events=1),
    )


def write_dataset(root: Path) -> None:
    """Items, events and pairs as the data job leaves them; the last items are cold."""
    keys = 100 + 7 * np.arange(COUNT + COLD)
    cluster = np.arange(COUNT + COLD) % CLUSTERS
    cold = np.arange(COUNT + COLD) >= COUNT
    run = root / "dt=2024-01-01" / "run=abababababab"
    with published_folder(run) as folder:
        tables = {"items": _items(keys, cluster, cold), "events/dt=2024-01-01": _events(keys, cold)}
        for split in SPLITS:
            own = ~cold if split == "train" else np.ones_like(cold)
            tables[f"pairs/split={split}"] = _pairs(keys[own], cluster[own])
        for name, table in tables.items():
            (folder / name).mkdir(parents=True)
            pq.write_table(table, folder / name / "part-0.parquet", write_page_checksum=True)
        seal(folder, kind=KIND, format_version=FORMAT_VERSION, body={"digest": "ab" * 32})
    point_to(run)


def _items(keys: np.ndarray, cluster: np.ndarray, cold: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "item_id": [str(key) for key in keys],
            "item_key": keys,
            "title": [f"word{c} film{at}" for at, c in enumerate(cluster)],
            "train_events": np.where(cold, 0, 5),
            "test_events": np.full(len(keys), 5),
            "is_cold": cold,
        }
    )


def _events(keys: np.ndarray, cold: np.ndarray) -> pa.Table:
    rows = [
        (f"u{at}", at, int(key), at, "rating", 4.0, split)
        for split in SPLITS
        for at, key in enumerate(keys)
        if split != "train" or not cold[at]
    ]
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(EVENT_SCHEMA.names, columns, strict=True)), schema=EVENT_SCHEMA)


def _pairs(keys: np.ndarray, cluster: np.ndarray) -> pa.Table:
    same = (cluster[:, None] == cluster[None, :]) & ~np.eye(len(keys), dtype=bool)
    a, b = np.nonzero(same)
    ones = np.ones(len(a))
    columns = {"item_a": keys[a], "item_b": keys[b], "count": ones.astype(np.int64)}
    return pa.table({**columns, "weight": ones, "score": ones})


@pytest.fixture(scope="session")
def planted() -> ClickData:
    """A user's odd number decides the label; items and tags say nothing."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 60, 3_000), rng.integers(0, 20, 3_000)
    lengths = rng.integers(0, 3, 3_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    features = [FeatureSpec(name, "id", (name,), "id") for name in ("user", "item")]
    return ClickData(
        "planted",
        (*features, FeatureSpec("tags", "bag", ("tags",), "id")),
        {"user": user, "item": item, "tags": Jagged(rng.integers(0, 9, offsets[-1]), offsets)},
        (user % 2).astype(np.float32),
        random_parts(3_000, train=2_000, validation=500, test=500, seed=0),
        "odd users click",
        "at random",
    )


@pytest.fixture(scope="session")
def settings() -> ClickSettings:
    """A schedule of seconds."""
    return ClickSettings(8, "mlp", Schedule(128, 4, 2, dense_lr=1e-2, weight_decay=0.0))


@pytest.fixture(scope="session")
def item_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe whose dataset is there: items of a cluster go together."""
    output = tmp_path_factory.mktemp("items")
    write_dataset(output / "dataset")
    return recipe_at(output)


@pytest.fixture(scope="session")
def item_data(item_recipe: Recipe) -> ItemData:
    """Its task on ids alone."""
    return load_item_data(item_recipe)
