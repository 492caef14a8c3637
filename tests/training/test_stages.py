"""Tables that train in stages inside the one loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from muxrec.data.batch import ItemBatch
from muxrec.errors import MuxrecError, RecipeError
from muxrec.recipe.model import Recipe
from muxrec.spec.features import TableSpec
from muxrec.tables.build import Tables, has_torchrec
from muxrec.tables.methods import METHODS
from muxrec.tables.staging import first_epochs, freeze, whole_rows
from muxrec.training.checkpoint import checkpoint_folder, open_checkpoint
from muxrec.training.encode import served_form
from muxrec.training.job import Job
from muxrec.training.loop import Trained, fit
from muxrec.training.session import OPTIMIZER_FILE

EPOCHS, STEPS = 4, 44
OPTIONS: dict[str, dict[str, float]] = {
    "cce": {"rounds": 1, "columns": 4},
    "optembed": {"rounds": 2},
    "dedup": {"block": 2},
    "cafe": {"every": 5},
}
STATEFUL = [
    name
    for name in METHODS
    if name in ("dpq", "int8", "alpt", "cafe", "dhe")
    or len(METHODS[name].stages_of(TableSpec("items", name, 8))) > 1  # type: ignore[arg-type]
]


class KilledError(Exception):
    """What stands for a kill in these tests; real kills are in test_resume."""


def with_method(recipe: Recipe, method: str) -> Recipe:
    rows = {"rows": 12} if method in ("cce", "cafe") else {}
    items = TableSpec("items", method, 8, options=OPTIONS.get(method, {}), **rows)  # type: ignore[arg-type]
    tables = tuple(items if table.name == "items" else table for table in recipe.tables)
    return replace(recipe, tables=tables)


@pytest.fixture
def staged(recipe_of: Callable[..., Recipe]) -> Callable[[str], Recipe]:
    engine = "torchrec" if has_torchrec() else "reference"

    def build(method: str) -> Recipe:
        return with_method(recipe_of(engine=engine, epochs=EPOCHS, checkpoint_every=3), method)

    return build


def final_files(folder: Path) -> dict[str, Any]:
    return dict(open_checkpoint(checkpoint_folder(folder, STEPS)).manifest["files"])


def dies_at(*steps: int) -> Callable[[int, dict[str, float]], None]:
    left = list(steps)

    def report(step: int, metrics: dict[str, float]) -> None:
        if left and step == left[0]:
            left.pop(0)
            raise KilledError

    return report


@pytest.mark.parametrize("method", STATEFUL)
def test_a_staged_training_goes_on_bit_for_bit_and_is_served_as_trained(
    method: str, staged: Callable[[str], Recipe], job_of: Callable[..., Job], tmp_path: Path
) -> None:
    recipe = staged(method)
    recipe = replace(recipe, train=replace(recipe.train, log_every=1))
    whole = replace(job_of(recipe), folder=tmp_path / "whole")
    check_served(whole, fit(whole))
    killed = replace(whole, folder=tmp_path / "killed", report=dies_at(16, 31))
    for _ in range(2):
        with pytest.raises(KilledError):
            fit(killed)
    fit(killed)
    assert final_files(killed.folder) == final_files(whole.folder)


def check_served(job: Job, trained: Trained) -> None:
    """What export loads is the frozen form of what was trained."""
    checkpoint = open_checkpoint(checkpoint_folder(job.folder, trained.checkpoint))
    served = served_form(checkpoint, job.recipe, job.prepared)
    batch = ItemBatch.from_arrays(job.prepared.arrays.take(np.arange(10)))
    with torch.no_grad():
        vectors = served(batch).vector
    assert torch.isfinite(vectors).all()
    assert vectors.std(dim=0).gt(0).any()
    tables, rows = trained.session.tables, cast(Tables, served.tables).local_tables()
    frozen = freeze(tables, whole_rows(tables))
    assert set(rows) == set(frozen.values)
    for name, value in frozen.values.items():
        assert torch.equal(rows[name].floats(), value.float())


def test_another_sharding_goes_on_with_the_same_training(
    staged: Callable[[str], Recipe], job_of: Callable[..., Job], tmp_path: Path
) -> None:
    recipe = staged("dedup")
    recipe = replace(recipe, train=replace(recipe.train, log_every=1))
    whole = replace(job_of(recipe), folder=tmp_path / "whole")
    fit(whole)
    killed = replace(whole, folder=tmp_path / "killed", report=dies_at(16))
    with pytest.raises(KilledError):
        fit(killed)
    cut = tuple(replace(table, sharding="column_wise") for table in recipe.tables)
    later = replace(killed, recipe=replace(recipe, tables=cut))
    steps: list[int] = []
    fit(replace(later, report=lambda step, _: steps.append(step)))
    assert steps[0] == 16
    assert final_files(killed.folder) == final_files(whole.folder)
    wider = tuple(replace(table, init=0.1) for table in recipe.tables)
    assert replace(whole, recipe=replace(recipe, tables=wider)).identity != whole.identity


def test_a_stage_of_one_table_keeps_the_moments_of_another_tables_maps(
    staged: Callable[[str], Recipe], job_of: Callable[..., Job]
) -> None:
    recipe = staged("dedup")
    networks = TableSpec("shared", "dhe", 8, options={"hidden": 8, "hashes": 8})
    job = job_of(replace(recipe, tables=(recipe.tables[0], networks)))
    fit(job)
    moments = load_file(checkpoint_folder(job.folder, STEPS) / OPTIMIZER_FILE)
    updates = {name: int(count) for name, count in moments.items() if name.endswith("/step")}
    assert {name.split(".")[0] for name in updates} == {"maps", "objective", "tower"}
    assert set(updates.values()) == {STEPS}


def test_too_few_epochs_for_the_stages_are_refused(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    recipe = with_method(recipe_of(epochs=1), "pep")
    with pytest.raises(RecipeError, match=r"tables\.items is pep and trains in 2 stages"):
        fit(job_of(recipe))


def test_a_budget_is_logged_once_in_a_training_of_several_stages(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = with_method(recipe_of(epochs=2), "dedup")
    items = replace(recipe.tables[0], budget="60%", options={"block": 2})
    job = job_of(replace(recipe, tables=(items, *recipe.tables[1:])))
    with caplog.at_level(logging.INFO, logger="muxrec"):
        checkpoint = fit(job).checkpoint
        served_form(
            open_checkpoint(checkpoint_folder(job.folder, checkpoint)), job.recipe, job.prepared
        )
    assert [line.split()[0] for line in caplog.messages if "budget=60%" in line] == ["budget"]


def test_a_budget_that_training_does_not_reach_is_refused(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    recipe = with_method(recipe_of(epochs=2), "autodim")
    tables = tuple(replace(t, budget="1%") if t.name == "items" else t for t in recipe.tables)
    job = job_of(replace(recipe, tables=tables))
    trained = fit(job)
    checkpoint = open_checkpoint(checkpoint_folder(job.folder, trained.checkpoint))
    with pytest.raises(MuxrecError, match=r"tables\.items\.budget 1%.*autodim takes"):
        served_form(checkpoint, job.recipe, job.prepared)


def test_early_stopping_judges_the_last_stage_alone(
    recipe_of: Callable[..., Recipe], job_of: Callable[..., Job]
) -> None:
    recipe = with_method(recipe_of(epochs=6, early_stop=1), "dedup")
    trained = fit(job_of(recipe, validate=True))
    first = first_epochs(METHODS["dedup"].stages, 6)[-1]
    assert trained.progress.best_steps > first * STEPS // EPOCHS
    assert trained.session.tables.lowering.declared[0].stage == 1
