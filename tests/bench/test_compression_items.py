"""The item-to-item task replaces one table, trains by the usual loop, ranks as evaluation does."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from muxrec.bench.compression import command, i2i_task
from muxrec.bench.compression.contestants import contestant
from muxrec.bench.compression.i2i_data import ItemData, full_item_table, load_item_data
from muxrec.bench.compression.i2i_quality import quality_of
from muxrec.bench.compression.i2i_task import ItemTask
from muxrec.bench.compression.i2i_training import (
    StepClock,
    TrainedTower,
    table_training_bytes,
    train_tower,
)
from muxrec.bench.compression.rates import Rate
from muxrec.bench.compression.record import Result
from muxrec.bench.compression.sweep import Cell
from muxrec.errors import DataError, RecipeError
from muxrec.evaluation.metrics import target_ranks
from muxrec.evaluation.scoring import vector_scorer
from muxrec.evaluation.slices import build_slices, slice_metrics
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Data, Recipe, Source
from muxrec.tables.memory import measured_training
from muxrec.tables.rows import ROW_FORMATS

RATE = Rate("adagrad", 0.2)
WARM = 60


def silent(epoch: int, validation: float) -> None:
    """Report to nobody."""


def measure(data: ItemData, method: str, budget: float = 1, seed: int = 0) -> Result:
    return ItemTask(data).run(Cell(method, budget, seed, RATE), {}, silent)


def trained_tower(data: ItemData, method: str, budget: float = 1, **train: Any) -> TrainedTower:
    data = replace(data, recipe=replace(data.recipe, train=replace(data.recipe.train, **train)))
    recipe, items = ItemTask(data).cell_recipe(contestant(method), Cell(method, budget, 0, RATE))
    return train_tower(recipe, items, data, silent)


def test_planted_clusters_are_found(item_data: ItemData) -> None:
    seen: list[int] = []
    cell = Cell("full", 1, 0, RATE)
    result = ItemTask(item_data).run(cell, {}, lambda epoch, value: seen.append(epoch))
    assert result.others["warm ndcg@10"] > 0.8
    # Cold items have no id in the tower: as queries they find nothing.
    share = WARM / len(item_data.test)
    assert result.quality == pytest.approx(share * result.others["warm ndcg@10"])
    assert seen == [1, 2, 3]
    assert (result.epochs, result.best_epoch, result.metric) == (3, 3, "ndcg@10")
    assert result.step_ms > 0
    assert result.serving_bytes - result.dictionary_bytes == 4 * 16 * WARM


def test_quality_is_that_of_the_evaluation(item_data: ItemData) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(item_data.is_cold), 8)).astype(np.float32)
    found = quality_of(vectors, item_data.test, ks=(5, 10), is_cold=item_data.is_cold)
    ranks = target_ranks(vector_scorer(vectors), item_data.test)
    slices = build_slices(item_data.prepared.table, item_data.test, item_data.recipe.features)
    for part in slices:
        if part.name in ("all", "warm"):
            values = slice_metrics(ranks, item_data.test, part, ks=(5, 10))
            prefix = "warm " if part.name == "warm" else ""
            for name in ("ndcg_at_5", "recall_at_10"):
                shown = prefix + name.replace("_at_", "@")
                assert found[shown] == pytest.approx(np.nanmean(values[name]))


def test_formats_of_a_full_table_share_one_training(
    item_data: ItemData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def spy(recipe: Recipe, *rest: Any) -> TrainedTower:
        trained.append(recipe.tables[0].method + ":" + recipe.tables[0].serve_dtype)
        return train_tower(recipe, *rest)

    monkeypatch.setattr(i2i_task, "train_tower", spy)
    # Rows that hardly moved give vectors so much alike that rounding changes ranks.
    task, slow = ItemTask(item_data), Rate("adagrad", 1e-4)
    results = {
        name: task.run(Cell(name, 1, 0, slow), {}, silent)
        for name in ("full:int2", "full", "full:int8")
    }
    assert trained == ["full:fp32"]
    for name in ("int8", "int2"):
        result = results[f"full:{name}"]
        limited = result.serving_bytes - result.dictionary_bytes
        assert limited == ROW_FORMATS[name].bytes_for(WARM, 16)
        assert result.training_bytes == results["full"].training_bytes
    assert len({result.quality for result in results.values()}) > 1
    # A table with a size is larger where its rows are smaller, so it is another training.
    for name in ("unified-2", "unified-2:int8"):
        result = task.run(Cell(name, 0.5, 0, RATE), {}, silent)
        limited = result.serving_bytes - result.dictionary_bytes
        assert 0.45 * 4 * 16 * WARM < limited <= 0.5 * 4 * 16 * WARM
    assert trained[1:] == ["unified:fp32", "unified:int8"]


def test_every_seed_hashes_anew_and_knows_the_same_ids(item_data: ItemData) -> None:
    (first, items), (second, others) = item_data.salted(0), item_data.salted(1)
    assert [f.name for f in first] == ["item~0"]
    assert [f.name for f in second] == ["item~1"]
    own, other = items.vocabularies["item~0"], others.vocabularies["item~1"]
    assert np.array_equal(own.ids(), other.ids())
    assert own.size == WARM
    assert not np.array_equal(own.keys, other.keys)


def test_two_runs_of_a_cell_give_the_same_vectors(item_data: ItemData) -> None:
    results = [measure(item_data, "unified-2", 0.1, seed) for seed in (3, 3, 4)]
    assert replace(results[0], step_ms=0) == replace(results[1], step_ms=0)
    assert results[0].others != results[2].others


def test_a_training_leaves_no_files(
    item_data: ItemData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(Path(str(item_data.recipe.output)).rglob("*"))
    measure(item_data, "hashed", 0.2)
    assert list(tmp_path.iterdir()) == []
    assert sorted(Path(str(item_data.recipe.output)).rglob("*")) == before


def test_other_modalities_add_no_bytes(item_recipe: Recipe, item_data: ItemData) -> None:
    alone = measure(item_data, "unified-2", 0.5)
    both = measure(load_item_data(item_recipe, is_ids_only=False), "unified-2", 0.5)
    for name in ("serving_bytes", "dictionary_bytes", "training_bytes", "parameters"):
        assert getattr(alone, name) == getattr(both, name)
    # Words tell the cluster of cold items too.
    assert both.quality > alone.quality


@pytest.mark.parametrize("engine", ["torchrec", "reference"])
@pytest.mark.parametrize(
    ("method", "budget"), [("full", 1), ("narrow", 0.4), ("unified-4", 0.5), ("pep", 0.5)]
)
def test_training_bytes_are_those_of_the_tensors(
    item_data: ItemData, method: str, budget: float, engine: str
) -> None:
    trained = trained_tower(item_data, method, budget, engine=engine)
    now = measured_training(trained.tables).total
    assert table_training_bytes(trained.tables, "items") == now
    assert trained.training_bytes >= now
    assert trained.parameters == sum(
        rows.weight.numel() for rows in trained.tables.local_tables().values()
    ) + sum(p.numel() for p in trained.tables.vectors.parameters())


def test_the_clock_counts_neighbouring_steps_of_an_epoch() -> None:
    seen: list[tuple[int, float]] = []
    clock = StepClock("ndcg_at_10", lambda epoch, value: seen.append((epoch, value)))
    for step, values in (
        (1, {"loss": 3.0}),
        (2, {"loss": 2.0}),
        (2, {"validation_ndcg_at_10": 0.4}),
        (3, {"loss": 2.0}),
        (4, {"loss": 1.0}),
        (4, {"validation_ndcg_at_10": 0.5}),
    ):
        clock(step, values)
    assert len(clock.step_s) == 2
    assert seen == [(1, 0.4), (2, 0.5)]


def test_a_recipe_without_its_dataset_says_how_to_build_it(
    item_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="`muxrec data build RECIPE`"):
        load_item_data(replace(item_recipe, output=str(tmp_path)))


def test_a_period_without_queries_is_named(item_recipe: Recipe) -> None:
    picky = replace(item_recipe, evaluation=replace(item_recipe.evaluation, min_events=99))
    with pytest.raises(DataError, match="the validation period has no queries"):
        load_item_data(picky)


def test_the_full_table_is_as_wide_as_the_recipes_vectors(item_recipe: Recipe) -> None:
    item, words = item_recipe.features
    shared = replace(item_recipe.tables[0], method="unified", width=4, rows=64, init=0.1)
    probed = replace(item_recipe, features=(replace(item, probes=4), words), tables=(shared,))
    full = full_item_table(probed)
    assert (full.name, full.method, full.width, full.init) == ("items", "full", 16, 0.1)
    several = replace(item_recipe, features=(item, replace(words, modality="id")))
    with pytest.raises(RecipeError, match=r"expected one table .* got 2"):
        full_item_table(several)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("unified-3", "3 probes do not divide width 16"),
        ("full:int8", "full:int8 has no size to set"),
    ],
)
def test_an_impossible_cell_is_refused(item_data: ItemData, method: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        measure(item_data, method, 0.8)


def run_command(*arguments: str) -> Any:
    return CliRunner().invoke(command.compression_bench, ["--task", "i2i", *arguments])


def test_the_command_measures_a_recipe(item_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    source = Source("movielens", path=str(tmp_path))
    path.write_text(dump_recipe(replace(item_recipe, data=Data(source))), encoding="utf-8")
    given = ["--recipe", str(path), "--set", "train.epochs=1", "--out", str(tmp_path / "out")]
    given += ["--methods", "full,full:int4,unified", "--budgets", "0.5", "--seeds", "2"]
    done = run_command(*given, "--tune", "adagrad:0.2")
    assert done.exit_code == 0, done.output
    machine = json.loads((tmp_path / "out" / "i2i-clusters.json").read_text())
    assert len(machine["results"]) == 3 * 2
    assert machine["facts"]["queries"] == "test 66 (60 warm), validation 66 (60 warm)"
    assert machine["facts"]["data set"].startswith("recipe clusters, snapshot abababab")
    assert machine["facts"]["training"].count("1 epochs") == 1
    text = (tmp_path / "out" / "i2i-clusters.md").read_text()
    for line in (*machine["verdicts"], *machine["facts"].values()):
        assert line in text
    assert (tmp_path / "out" / "i2i-clusters.html").is_file()


def test_the_task_needs_its_recipe(tmp_path: Path) -> None:
    done = run_command("--out", str(tmp_path))
    assert done.exit_code == 2
    assert "--task i2i needs --recipe" in done.output
    other = CliRunner().invoke(command.compression_bench, ["--out", str(tmp_path)])
    assert other.exit_code == 2
    assert "--task click needs --data and --folder" in other.output
