"""Killed trainings go on and end with the same weights, bit for bit."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from muxrec.errors import TrainingError
from muxrec.losses.objective import ContrastiveObjective
from muxrec.recipe.model import Recipe
from muxrec.tables.build import Tables, has_torchrec
from muxrec.training.build import build_model
from muxrec.training.checkpoint import (
    checkpoint_folder,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
)
from muxrec.training.encode import encode_catalogue
from muxrec.training.history import read_history
from muxrec.training.job import Job
from muxrec.training.loop import fit
from muxrec.training.ranks import Ranks
from muxrec.training.session import check_position, dense_module, load_weights

SCRIPT = Path(__file__).with_name("train_planted.py")
FINAL = 33  # 672 pairs in batches of 64 are 11 steps, 3 epochs.
FINAL_OF_TWO = 18  # Two ranks share them: 6 steps an epoch.

ENGINES = [
    "reference",
    pytest.param("torchrec", marks=pytest.mark.skipif(not has_torchrec(), reason="no torchrec")),
]


def _train(folder: Path, engine: str, *options: str, ranks: int = 1) -> int:
    """Run the script; returns its exit code, negative for a signal."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(SCRIPT), str(folder), engine]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, check=False)
    if done.returncode > 0 and ranks == 1:
        raise AssertionError(done.stderr.decode())
    return done.returncode


def _files(folder: Path, steps: int) -> dict[str, dict[str, object]]:
    """Size and SHA-256 of every file of a checkpoint: weights, moments, tables."""
    return dict(open_checkpoint(checkpoint_folder(folder / "run", steps)).manifest["files"])


def _losses(folder: Path) -> list[tuple[int, float]]:
    history = read_history(folder / "run")
    return [(record["step"], record["loss"]) for record in history if "loss" in record]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_killed_at_any_point_ends_with_the_same_weights(
    tmp_path: Path, engine: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _train(whole, engine) == 0
    # Before the first checkpoint, inside an epoch, at an epoch's last step, inside a checkpoint.
    for death in (["--die-at=3"], ["--die-at=10"], ["--die-at=22"], ["--die-in-save=2"]):
        assert _train(killed, engine, *death) == -signal.SIGKILL
    assert _train(killed, engine) == 0
    assert len(_files(whole, FINAL)) == 7
    assert _files(killed, FINAL) == _files(whole, FINAL)
    assert not list((killed / "run/checkpoints").glob(".*"))
    assert _losses(killed) == _losses(whole)
    assert [step for step, _ in _losses(whole)] == list(range(1, FINAL + 1))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by two processes, not interrupted."""
    if not has_torchrec():
        pytest.skip("several processes need the torchrec engine")
    folder = tmp_path_factory.mktemp("two_ranks")
    assert _train(folder, "torchrec", ranks=2) == 0
    return folder


@pytest.mark.slow
def test_a_training_by_two_processes_survives_a_kill_bit_for_bit(
    two_ranks: Path, tmp_path: Path
) -> None:
    assert _train(tmp_path, "torchrec", "--die-at=9", ranks=2) != 0
    assert not checkpoint_folder(tmp_path / "run", FINAL_OF_TWO).exists()
    assert list_checkpoints(tmp_path / "run")
    assert _train(tmp_path, "torchrec", ranks=2) == 0
    whole, killed = _files(two_ranks, FINAL_OF_TWO), _files(tmp_path, FINAL_OF_TWO)
    assert {name for name in whole if name.startswith("tables/shared")} == {
        "tables/shared.0-256.safetensors",
        "tables/shared.256-512.safetensors",
    }
    assert killed == whole
    assert _losses(tmp_path) == _losses(two_ranks)


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_opens_in_one(
    two_ranks: Path, recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    job = job_of(recipe_of())
    model = build_model(job.recipe, job.prepared, engine="reference")
    dense = dense_module(model, ContrastiveObjective(job.recipe.objective, widths=(16,)))
    found = open_checkpoint(checkpoint_folder(two_ranks / "run", FINAL_OF_TWO))
    load_weights(found, dense, cast(Tables, model.tables))
    vectors, _ = encode_catalogue(model, job.prepared.arrays)
    # Another engine sums a bag's rows in another order.
    np.testing.assert_allclose(vectors, np.load(two_ranks / "vectors.npy"), rtol=0, atol=2e-6)


@pytest.mark.slow
def test_a_checkpoint_inside_an_epoch_belongs_to_its_number_of_processes(two_ranks: Path) -> None:
    inside = open_checkpoint(checkpoint_folder(two_ranks / "run", 16))
    with pytest.raises(TrainingError, match="by 2 ranks, this run has 1: resume with 2"):
        check_position(inside, world_size=1)
    assert check_position(inside, world_size=2).step == 4
    between = open_checkpoint(checkpoint_folder(two_ranks / "run", FINAL_OF_TWO))
    assert check_position(between, world_size=1).epoch == 3


def test_several_processes_with_tables_of_one_are_refused(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    with pytest.raises(TrainingError, match="2 processes need tables on the torchrec engine"):
        fit(job_of(recipe_of(), ranks=Ranks(0, 2)))


def _harm(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "edited":
        path.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "edited", "missing"])
@pytest.mark.parametrize("name", ["dense.safetensors", "tables/shared.0-512.safetensors"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    recipe_of: Callable[..., Recipe],
    job_of: Callable[..., Job],
    caplog: pytest.LogCaptureFixture,
    how: str,
    name: str,
) -> None:
    job = job_of(recipe_of(epochs=2))
    fit(job)
    whole = dict(open_checkpoint(checkpoint_folder(job.folder, 22)).manifest["files"])
    _harm(checkpoint_folder(job.folder, 22) / name, how)
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(job.folder)
    assert found is not None
    assert found.progress.steps == 11
    assert "checkpoint_damaged" in caplog.text
    assert name in caplog.text
    fit(job)
    assert dict(open_checkpoint(checkpoint_folder(job.folder, 22)).manifest["files"]) == whole


def test_with_every_checkpoint_damaged_training_starts_again(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    job = job_of(recipe_of(epochs=2))
    fit(job)
    whole = dict(open_checkpoint(checkpoint_folder(job.folder, 22)).manifest["files"])
    for folder in list_checkpoints(job.folder):
        _harm(folder / "manifest.json", "missing")
    fit(job)
    assert dict(open_checkpoint(checkpoint_folder(job.folder, 22)).manifest["files"]) == whole


def test_only_the_newest_checkpoints_are_kept(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    job = job_of(recipe_of(checkpoint_every=3, keep=3))
    fit(job)
    assert [path.name for path in list_checkpoints(job.folder)] == ["step=27", "step=30", "step=33"]


def test_a_checkpoint_of_another_tower_is_refused(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    fit(job_of(recipe_of(epochs=1)))
    job = job_of(recipe_of(epochs=0, tower={"width": 8}))
    found = newest_checkpoint(job.folder)
    assert found is not None
    session = fit(Job(**{**vars(job), "folder": job.folder / "other"})).session
    with pytest.raises(TrainingError, match="holds another tower"):
        load_weights(found, session.dense, session.tables)
