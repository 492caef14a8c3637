"""``muxrec train`` on a small snapshot: files, skipping, resuming, loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from muxrec.data.snapshot import FORMAT_VERSION, KIND, Snapshot, point_to
from muxrec.errors import TrainingError
from muxrec.evaluation.command import planned_runs
from muxrec.export.choose import choose_variant
from muxrec.features.arrays import ItemArrays
from muxrec.features.prepare import Prepared, prepare_items
from muxrec.manifest import published_folder, seal
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Data, Evaluation, Recipe, Source, TableFile, Tower, Tracking, Train
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.training import checkpoint, job, session
from muxrec.training.command import train
from muxrec.training.encode import encode_catalogue, load_model
from muxrec.training.study import prepared_for, variants

Catalogue = tuple[ItemArrays, np.ndarray]

FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="shared", probes=2),
    FeatureSpec("look", "vector", ("look",), "image", width=10),
)
TABLES = (TableSpec("items", "full", 8), TableSpec("shared", "unified", 4, rows=256))


def _items(catalogue: Catalogue) -> pa.Table:
    arrays, cluster = catalogue
    look = arrays.dense["look"]
    return pa.table(
        {
            "item_id": [str(key) for key in arrays.item_keys],
            "item_key": arrays.item_keys,
            "title": [f"kind{c} thing{c % 3}" for c in cluster],
            "look": [x.tolist() if p else None for x, p in zip(*vars(look).values(), strict=True)],
            "train_events": np.full(len(arrays), 3),
            "test_events": np.full(len(arrays), 3),
            "is_cold": np.zeros(len(arrays), dtype=bool),
        }
    )


def _events(keys: np.ndarray) -> pa.Table:
    each = np.repeat(keys, 3)
    one, text = np.ones(len(each)), ["v"] * len(each)
    whole = one.astype(np.int64)
    return pa.table(
        {
            "user_id": text,
            "user_key": whole,
            "item_key": each,
            "timestamp": whole,
            "event_type": text,
            "weight": one,
            "split": ["validation"] * len(each),
        }
    )


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One store for all tests: MLflow takes seconds to make a new one."""
    return Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def run(tmp_path: Path, catalogue: Catalogue, pair_file: Path, tracking: Tracking) -> Recipe:
    """A recipe whose output folder holds a sealed dataset snapshot."""
    final = tmp_path / "out/dataset/dt=2020-01-01/run=abcdefabcdef"
    with published_folder(final) as folder:
        for name in ("items", "events/dt=1970-01", "pairs/split=train", "pairs/split=validation"):
            (folder / name).mkdir(parents=True)
        pq.write_table(_items(catalogue), folder / "items/part-0.parquet")
        events = _events(catalogue[0].item_keys)
        pq.write_table(events, folder / "events/dt=1970-01/part-0.parquet")
        for split in ("train", "validation"):
            target = folder / f"pairs/split={split}/part-0.parquet"
            target.write_bytes(pair_file.read_bytes())
        seal(folder, kind=KIND, format_version=FORMAT_VERSION, body={"digest": "abc"})
    point_to(final)
    return Recipe(
        "small",
        Data(Source("generic", interactions=TableFile("log"), items=TableFile("items"))),
        FEATURES,
        TABLES,
        output=str(tmp_path / "out"),
        tower=Tower(width=8, matryoshka=(4,)),
        train=Train(epochs=2, batch_size=64, engine="reference", threads=1),
        evaluation=Evaluation(ks=(5, 10), ablations={"text only": ("text",)}),
        tracking=tracking,
    )


def _command(recipe: Recipe, *options: str) -> str:
    path = Path(recipe.output or "") / "given.yaml"
    path.write_text(dump_recipe(recipe))
    result = CliRunner().invoke(train, [str(path), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_variant_leaves_its_vectors_and_is_skipped_next_time(run: Recipe) -> None:
    lines = _command(run).splitlines()
    names = ["main", "text only", "permuted_images", "random_encoders"]
    assert [line.split(" seed=")[0] for line in lines] == names
    assert all("22 steps, loss" in line and "validation ndcg_at_10" in line for line in lines)
    for variant in variants(run):
        vectors, parts = (np.load(variant.folder / f"{n}.npy") for n in ("vectors", "parts"))
        done = json.loads((variant.folder / "done.json").read_text())
        assert vectors.shape == (96, 8)
        assert parts.shape == (96, len(done["modalities"]), 8)
        # Sums of at most 3 float32 parts.
        np.testing.assert_allclose(parts.sum(axis=1), vectors, atol=1e-6)
        assert done["widths"] == [4, 8]
    assert all("already trained" in line for line in _command(run).splitlines())


def test_a_changed_recipe_or_a_missing_file_trains_again(run: Recipe) -> None:
    _command(run, "--variants", "main")
    folder = variants(run)[0].folder
    assert "already trained" not in _command(run, "--variants", "main", "--set", "train.lr=0.001")
    assert "already trained" not in _command(run, "--variants", "main")
    (folder / "vectors.npy").unlink()
    first = json.loads((folder / "done.json").read_text())
    assert "already trained" not in _command(run, "--variants", "main")
    again = json.loads((folder / "done.json").read_text())
    assert again["checkpoint_steps"] == first["checkpoint_steps"]
    assert "already trained" not in _command(run, "--variants", "main", "--fresh")
    assert "already trained" in _command(run, "--variants", "main", "--set", "index.m=8")


def test_a_training_of_an_older_checkpoint_format_is_made_again(
    run: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    _command(run, "--variants", "main")
    newer = checkpoint.FORMAT_VERSION + 1
    for module in (checkpoint, job, session):
        monkeypatch.setattr(module, "FORMAT_VERSION", newer)
    with pytest.raises(TrainingError, match="no finished training of this recipe"):
        choose_variant(run, _prepared(run), "abc", seed=None)
    assert "already trained" not in _command(run, "--variants", "main")
    assert choose_variant(run, _prepared(run), "abc", seed=None).seed == 0


def test_an_evaluation_takes_the_vectors_of_the_same_recipe_only(run: Recipe) -> None:
    _command(run, "--variants", "main")
    assert [r.name for r in planned_runs(run) if r.is_done] == ["main"]
    assert not planned_runs(replace(run, seed=1))[0].is_done
    changed = replace(run, index=replace(run.index, m=8))
    assert planned_runs(changed)[0].is_done


def _prepared(recipe: Recipe) -> Prepared:
    out = Path(recipe.output or "")
    return prepare_items(recipe, Snapshot.open(out / "dataset"), cache=out / "cache")


def test_the_loaded_model_gives_the_saved_vectors(run: Recipe) -> None:
    _command(run)
    prepared = _prepared(run)
    for variant in variants(run):
        mine = prepared_for(variant, prepared)
        model = load_model(variant.folder, variant.recipe, mine)
        vectors, parts = encode_catalogue(model, mine.arrays)
        assert np.array_equal(vectors, np.load(variant.folder / "vectors.npy"))
        assert np.array_equal(parts, np.load(variant.folder / "parts.npy"))


def test_loading_an_unfinished_training_is_refused(run: Recipe) -> None:
    with pytest.raises(TrainingError, match="no finished training: run `muxrec train` first"):
        load_model(variants(run)[0].folder, run, _prepared(run))


def test_seeds_give_different_models(run: Recipe) -> None:
    run = replace(run, evaluation=replace(run.evaluation, seeds=2, controls=False, ablations={}))
    _command(run)
    one, two = (np.load(v.folder / "vectors.npy") for v in variants(run))
    assert not np.allclose(one, two)
