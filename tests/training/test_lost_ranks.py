"""``muxrec train`` on two processes: one is killed, the other says so, the next start goes on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from muxrec.data.snapshot import FORMAT_VERSION, KIND, point_to
from muxrec.manifest import published_folder, seal
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Data, Evaluation, Recipe, Source, TableFile, Tower, Tracking, Train
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables.build import has_torchrec
from muxrec.training.ranks import first_words, is_lost_peer

SCRIPT = Path(__file__).with_name("train_on_ranks.py")
FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", table="items"),
    FeatureSpec("words", "tokens", ("title",), "text", table="shared", probes=2),
)
TABLES = (
    TableSpec("items", "full", 8, sharding="column_wise"),
    TableSpec("shared", "unified", 4, rows=256),
)


def _neighbour(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipes(tmp_path: Path, catalogue: Any, pair_file: Path) -> dict[str, Path]:
    """The same recipe twice, each with an output folder of its own."""
    given = _neighbour("test_train_command")
    found = {}
    for name in ("whole", "killed"):
        final = tmp_path / name / "dataset/dt=2020-01-01/run=abcdefabcdef"
        with published_folder(final) as folder:
            for part in ("items", "events/dt=1970-01", "pairs/split=train"):
                (folder / part).mkdir(parents=True)
            pq.write_table(given._items(catalogue), folder / "items/part-0.parquet")
            events = given._events(catalogue[0].item_keys)
            pq.write_table(events, folder / "events/dt=1970-01/part-0.parquet")
            target = folder / "pairs/split=train/part-0.parquet"
            target.write_bytes(pair_file.read_bytes())
            seal(folder, kind=KIND, format_version=FORMAT_VERSION, body={"digest": "abc"})
        point_to(final)
        recipe = Recipe(
            "small",
            Data(Source("generic", interactions=TableFile("log"), items=TableFile("items"))),
            FEATURES,
            TABLES,
            output=str(tmp_path / name),
            tower=Tower(width=8),
            train=Train(epochs=2, batch_size=64, engine="torchrec", threads=1, checkpoint_every=4),
            evaluation=Evaluation(ks=(5,)),
            tracking=Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"),
        )
        found[name] = tmp_path / name / "given.yaml"
        found[name].write_text(dump_recipe(recipe))
    return found


def _train(recipe: Path, *death: str) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), str(recipe), *death],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def _vectors(recipe: Path) -> np.ndarray:
    return np.load(next(recipe.parent.glob("train/main/seed=*/vectors.npy")))


@pytest.mark.slow
@pytest.mark.skipif(not has_torchrec(), reason="several processes need the torchrec engine")
def test_a_killed_process_ends_the_job_with_one_line_and_the_next_start_goes_on(
    recipes: dict[str, Path],
) -> None:
    killed = _train(recipes["killed"], "1", "9")
    lines = [line for line in killed.stderr.splitlines() if line.startswith("error: ")]
    assert killed.returncode == 1, killed.stderr
    assert len(lines) == 1, killed.stderr
    assert lines[0].startswith("error: process 0 of 2 stops: another process of this training has")
    assert "start the same command again with 2 processes" in lines[0]
    assert "exitcode  : -9" in killed.stderr
    resumed = _train(recipes["killed"])
    assert resumed.returncode == 0, resumed.stderr
    assert "start=8" in resumed.stderr
    assert _train(recipes["whole"]).returncode == 0
    np.testing.assert_array_equal(_vectors(recipes["killed"]), _vectors(recipes["whole"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[/src/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:26014. This is",
            "Connection closed by peer [::1]:26014",
        ),
        (
            "[/src/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv",
            "Timed out waiting 1800000ms for recv",
        ),
    ],
)
def test_a_failed_exchange_is_told_from_other_errors(text: str, words: str) -> None:
    assert is_lost_peer(RuntimeError(text))
    assert first_words(RuntimeError(text)) == words
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
