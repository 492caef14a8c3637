import dataclasses
import shutil
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from muxrec.data.snapshot import FORMAT_VERSION, KIND, point_to
from muxrec.manifest import published_folder, seal
from muxrec.recipe.model import (
    Data,
    Evaluation,
    Export,
    Index,
    Recipe,
    Source,
    TableFile,
    Tower,
    Tracking,
    Train,
)
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import string_ids


def make_recipe(output: Path, **changes) -> Recipe:
    features = (
        FeatureSpec("plot", "vector", ("plot",), "text", width=16),
        FeatureSpec("poster", "vector", ("poster",), "image", width=16),
    )
    data = Data(Source("generic"))
    return Recipe("tiny", data, features, output=str(output), **changes)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A migrated MLflow database: its first start costs seconds, a copy costs nothing."""
    from muxrec.tracking.server import connect

    folder = tmp_path_factory.mktemp("database")
    connect(make_recipe(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def recipe(tmp_path, empty_database) -> Recipe:
    output = tmp_path / "run"
    output.mkdir()
    shutil.copy(empty_database, output / "mlflow.db")
    return make_recipe(output)


@pytest.fixture
def closed_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def away_recipe(tmp_path, closed_port) -> Recipe:
    """A recipe whose MLflow server is down."""
    tracking = Tracking(uri=f"http://127.0.0.1:{closed_port}")
    return make_recipe(tmp_path / "run", tracking=tracking)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory) -> Path:
    """A small published bundle; tests copy it before they harm it."""
    from muxrec.bundle.sample import sample_bundle

    return sample_bundle(tmp_path_factory.mktemp("bundles"))


CLUSTERS, PER_CLUSTER = 12, 10
MODEL_FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="shared", probes=3, ngrams=(3,)),
    FeatureSpec("genres", "bag", ("genres",), "attributes", table="shared", pooling="sum"),
    FeatureSpec(
        "year", "number", ("year",), "attributes", table="years", boundaries=(1960.0, 1980.0)
    ),
    FeatureSpec("look", "vector", ("look",), "image", width=10),
    FeatureSpec("pixels", "image", ("picture",), "image", encoder="conv", image_size=16),
)


def catalogue_table(pictures: Path) -> pa.Table:
    """120 items of 12 clusters; every seventh lacks most values and one lacks all of them."""
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(CLUSTERS), PER_CLUSTER)
    count = len(cluster)
    ids = [f"item-{at}" for at in range(count)]
    shown = [at % 7 != 0 for at in range(count)]
    looks = rng.normal(size=(CLUSTERS, 10))[cluster] + 0.3 * rng.normal(size=(count, 10))
    paths = []
    for at, c in enumerate(cluster):
        paths.append(str(pictures / f"{at}.png"))
        pixels = np.full((16, 16, 3), 20 * c, dtype=np.uint8)
        pixels[:, : at % 16] = 255
        Image.fromarray(pixels).save(paths[-1])
    # Cold and without any content: nothing is known about it.
    shown[5] = False
    is_cold = [at % 10 == 5 for at in range(count)]
    columns = {
        "item_id": ids,
        "item_key": string_ids(ids),
        "title": [f"kind{c} thing{at % 5}" if at != 5 else None for at, c in enumerate(cluster)],
        "genres": [
            [f"g{c % 4}", "all"] if s else None for c, s in zip(cluster, shown, strict=True)
        ],
        "year": [1950.0 + 4 * c if s else None for c, s in zip(cluster, shown, strict=True)],
        "look": [x.tolist() if s else None for x, s in zip(looks, shown, strict=True)],
        "picture": [path if s else None for path, s in zip(paths, shown, strict=True)],
        "train_events": np.where(is_cold, 0, 3),
        "test_events": np.full(count, 3),
        "is_cold": is_cold,
        "cluster": cluster,
    }
    return pa.table(columns).sort_by("item_key")


def write_snapshot(root: Path, table: pa.Table) -> None:
    """A sealed dataset: warm items of one cluster are pairs, three validation events per item."""
    keys, cluster = table["item_key"].to_numpy(), table["cluster"].to_numpy()
    warm = ~table["is_cold"].to_numpy(zero_copy_only=False)
    same = (cluster[:, None] == cluster) & ~np.eye(len(keys), dtype=bool) & warm[:, None] & warm
    a, b = np.nonzero(same)
    ones = np.ones(len(a))
    pairs = pa.table(
        {
            "item_a": keys[a],
            "item_b": keys[b],
            "count": ones.astype(np.int64),
            "weight": ones,
            "score": ones,
        }
    )
    each = np.repeat(keys, 3)
    text, whole = ["v"] * len(each), np.ones(len(each), dtype=np.int64)
    events = pa.table(
        {
            "user_id": text,
            "user_key": whole,
            "item_key": each,
            "timestamp": whole,
            "event_type": text,
            "weight": whole.astype(float),
            "split": ["validation"] * len(each),
        }
    )
    final = root / "dt=2020-01-01" / "run=abcdefabcdef"
    with published_folder(final) as folder:
        for name in ("items", "events/dt=1970-01", "pairs/split=train", "pairs/split=validation"):
            (folder / name).mkdir(parents=True)
        pq.write_table(table.drop_columns(["cluster"]), folder / "items/part-0.parquet")
        pq.write_table(events, folder / "events/dt=1970-01/part-0.parquet")
        for split in ("train", "validation"):
            pq.write_table(pairs, folder / f"pairs/split={split}/part-0.parquet")
        seal(folder, kind=KIND, format_version=FORMAT_VERSION, body={"digest": "abc" * 20})
    point_to(final)


def train_tiny(recipe: Recipe) -> Recipe:
    """Train the recipe's main tower for real; returns the recipe."""
    from muxrec.data.snapshot import Snapshot
    from muxrec.features.prepare import prepare_items
    from muxrec.recipe.load import output_folder
    from muxrec.training.ranks import Ranks
    from muxrec.training.run import job_for, train_variant
    from muxrec.training.study import variants

    output = output_folder(recipe)
    snapshot = Snapshot.open(output / "dataset")
    prepared = prepare_items(recipe, snapshot, cache=output / "cache")
    for variant in variants(recipe):
        train_variant(variant, job_for(variant, snapshot, prepared, ranks=Ranks()))
    return recipe


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> dict[str, Recipe]:
    """Trained runs by how their tables are served."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "pictures").mkdir()
    table = catalogue_table(folder / "pictures")
    runs = {}
    fp32 = (
        TableSpec("items", "full", 16),
        TableSpec("shared", "unified", 8, rows=509),
        TableSpec("years", "hashed", 4, rows=64),
    )
    quantised = (
        dataclasses.replace(fp32[0], serve_dtype="int8"),
        dataclasses.replace(fp32[1], serve_dtype="int4", serve_group=24),
        dataclasses.replace(fp32[2], serve_dtype="fp16"),
    )
    for dtype, tables in {"fp32": fp32, "quantised": quantised}.items():
        write_snapshot(folder / dtype / "dataset", table)
        recipe = Recipe(
            "tiny",
            Data(Source("generic", interactions=TableFile("log"), items=TableFile("items"))),
            MODEL_FEATURES,
            tables,
            output=str(folder / dtype),
            tower=Tower(width=16),
            train=Train(epochs=3, batch_size=64, engine="reference", threads=1),
            evaluation=Evaluation(ks=(5, 10), controls=False, seeds=2 if dtype == "fp32" else 1),
            index=Index(neighbours=15, golden_queries=20),
            export=Export(display=("title",), filters=("year", "genres"), image="picture"),
        )
        runs[dtype] = train_tiny(recipe)
    return runs


@pytest.fixture(scope="session")
def exported(trained) -> dict[str, object]:
    """Exported runs by format; the quantised one keeps its weights in an external data file."""
    from muxrec.export import onnx_graph, pack

    done = {"fp32": pack.export_run(trained["fp32"])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "EXTERNAL_BYTES", 1000)
        done["quantised"] = pack.export_run(trained["quantised"])
    return done
