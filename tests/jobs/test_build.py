"""Whole builds on a small week of events."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Recipe, Source, TableFile
from muxrec_jobs.build import Request, build_dataset
from muxrec_jobs.check import check_snapshot
from muxrec_jobs.commands import data as data_command
from muxrec_jobs.local_pairs import mine_pairs

pytestmark = pytest.mark.spark
MakeRecipe = Callable[..., Recipe]


def shuffled(text: str, seed: int) -> str:
    header, *rows = text.splitlines()
    random.Random(seed).shuffle(rows)
    return "\n".join([header, *rows]) + "\n"


def test_a_build_holds_what_the_events_say(
    spark: SparkSession, make_recipe: MakeRecipe, weekly_events: str, weekly_items: str
) -> None:
    broken = "u1,3,never,view,1\nu1,99,1500000000,view,1\nu1,3\n"
    recipe = make_recipe(weekly_events + broken, weekly_items)
    source = replace(recipe.data.source, relations={"near": "related"})
    recipe = replace(recipe, data=replace(recipe.data, source=source, partition="day"))
    built = build_dataset(recipe)
    snapshot, manifest = built.snapshot, built.snapshot.manifest
    assert built.status == "built"
    assert manifest["counts"]["rejected"] == {
        "item_not_in_catalogue": 1,
        "malformed_row": 1,
        "unreadable_timestamp": 1,
    }
    assert sorted(snapshot.rejected()["reason"].to_pylist()) == sorted(
        manifest["counts"]["rejected"]
    )
    assert '{"line":"u1,3"}' in snapshot.rejected()["row"].to_pylist()
    assert snapshot.events().num_rows == manifest["rows"]["events"] == 360
    items = snapshot.items()
    own = ["title", "shelf", "related"]
    made = ["train_events", "test_events", "is_cold"]
    assert items.column_names == ["item_id", "item_key", *own, *made]
    assert items["item_key"].to_pylist() == list(range(16))
    assert items["related"].to_pylist()[2] == ["3", "4"]
    assert items["is_cold"].to_pylist() == [False] * 15 + [True]
    assert sum(items["train_events"].to_pylist()) == manifest["slices"]["train"]
    assert all(a // 3 == b // 3 for a, b in zip(*_keys(snapshot, "train"), strict=True))
    assert set(check_snapshot(snapshot, recipe.data).values()) == {0}
    for split in ("train", "validation", "test"):
        events = snapshot.events(split)
        columns = [events[n].to_numpy() for n in ("user_key", "timestamp", "item_key")]
        expected = mine_pairs(*columns, recipe.data.pairs, weight=events["weight"].to_numpy())
        assert snapshot.pairs(split).equals(expected)


def _keys(snapshot: Snapshot, split: str) -> tuple[list, list]:
    pairs = snapshot.pairs(split)
    return pairs["item_a"].to_pylist(), pairs["item_b"].to_pylist()


def test_the_digest_knows_the_rows_and_not_their_order_files_or_partitions(
    spark: SparkSession,
    make_recipe: MakeRecipe,
    weekly_events: str,
    weekly_items: str,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(weekly_events, weekly_items)
    first = build_dataset(recipe)
    unchanged = build_dataset(recipe)
    assert (unchanged.status, unchanged.snapshot.folder) == ("unchanged", first.snapshot.folder)
    again = build_dataset(recipe, Request(rebuild=True))
    assert (again.status, again.snapshot.folder) == ("same", first.snapshot.folder)

    other = make_recipe(shuffled(weekly_events, 1), shuffled(weekly_items, 2), name="other")
    other = replace(other, data=replace(other.data, partition="day"), output=str(tmp_path / "b"))
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    moved = build_dataset(other)
    spark.conf.set("spark.sql.shuffle.partitions", "4")
    assert moved.snapshot.manifest["prints"] == first.snapshot.manifest["prints"]
    assert moved.snapshot.digest == first.snapshot.digest
    assert moved.snapshot.pairs("train").equals(first.snapshot.pairs("train"))
    assert moved.snapshot.items().equals(first.snapshot.items())
    assert moved.snapshot.events().equals(first.snapshot.events())

    changed = weekly_events.replace(",view,2\n", ",view,2.5\n", 1)
    edited = build_dataset(make_recipe(changed, weekly_items))
    assert edited.status == "built"
    assert edited.snapshot.digest != first.snapshot.digest
    assert Snapshot.open(first.snapshot.folder).digest == first.snapshot.digest


def test_a_source_without_a_catalogue_has_the_items_that_occur(
    spark: SparkSession, make_recipe: MakeRecipe, weekly_events: str
) -> None:
    built = build_dataset(make_recipe(weekly_events))
    assert built.snapshot.items()["item_id"].to_pylist() == [str(n) for n in range(15)]


def test_a_backfill_makes_a_snapshot_per_day_and_never_looks_ahead(
    spark: SparkSession,
    make_recipe: MakeRecipe,
    weekly_events: str,
    weekly_items: str,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(weekly_events, weekly_items)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    whole = build_dataset(recipe)
    root = whole.snapshot.folder.parent.parent
    runner = CliRunner()
    days = ["--from", "2017-07-18", "--to", "2017-07-19"]
    result = runner.invoke(data_command, ["build", str(path), *days, "--lookback", "3", "--json"])
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert [day["as_of"] for day in line["days"]] == ["2017-07-18", "2017-07-19"]
    for day in line["days"]:
        snapshot = Snapshot.open(root / f"dt={day['as_of']}")
        assert snapshot.events().num_rows == 3 * 36
        assert day["counts"]["outside_time_range"] == 360 - 3 * 36
    # CURRENT stays at the newest day; a single build of an old day is a choice and moves it.
    assert Snapshot.open(root).folder == whole.snapshot.folder
    old = build_dataset(recipe, Request(day=date(2017, 7, 18), lookback_days=3))
    assert old.status == "unchanged"
    assert Snapshot.open(root).folder == old.snapshot.folder


def test_only_the_newest_runs_of_a_day_are_kept(
    spark: SparkSession, make_recipe: MakeRecipe, weekly_events: str
) -> None:
    first = build_dataset(make_recipe(weekly_events))
    changed = weekly_events.replace(",view,2\n", ",view,2.5\n", 1)
    second = build_dataset(make_recipe(changed), Request(keep=1))
    assert second.removed == [first.snapshot.folder.name]
    assert [p.name for p in second.snapshot.folder.parent.glob("run=*")] == [
        second.snapshot.folder.name
    ]


def test_a_damaged_published_run_is_made_again(
    spark: SparkSession, make_recipe: MakeRecipe, weekly_events: str
) -> None:
    recipe = make_recipe(weekly_events)
    built = build_dataset(recipe)
    file = built.snapshot.files("items")[0]
    file.write_bytes(file.read_bytes()[:-1])
    repaired = build_dataset(recipe)
    assert repaired.status == "built"
    assert Snapshot.open(repaired.snapshot.folder).digest == built.snapshot.digest


def test_input_broken_beyond_the_limit_publishes_nothing(
    spark: SparkSession, make_recipe: MakeRecipe, weekly_events: str
) -> None:
    torn = weekly_events + "u1,3\n" * 90
    recipe = make_recipe(torn)
    with pytest.raises(DataError, match=r"90 of 450 interaction rows refused \(malformed_row 90\)"):
        build_dataset(recipe)
    with pytest.raises(DataError, match="no dataset snapshot"):
        Snapshot.open(Path(recipe.output or "") / "dataset")


def test_a_header_without_rows_is_refused(spark: SparkSession, make_recipe: MakeRecipe) -> None:
    with pytest.raises(DataError, match="the interactions are empty"):
        build_dataset(make_recipe("user_id,item_id,timestamp\n"))


@pytest.mark.parametrize(
    ("items", "relations", "message"),
    [
        ("item_id,title\n1,a\n", {"near": "gone"}, r"relations\.near: the catalogue has no column"),
        ("item_id,is_cold\n1,a\n", {}, "column is_cold is made by the job"),
    ],
)
def test_a_catalogue_against_its_declaration_is_refused(
    spark: SparkSession, make_recipe: MakeRecipe, items: str, relations: dict, message: str
) -> None:
    rows = [f"u{n % 3},1,{1_500_000_000 + n},view,1" for n in range(30)]
    recipe = make_recipe("\n".join(["user_id,item_id,timestamp,event_type,weight", *rows]), items)
    source = replace(recipe.data.source, relations=relations)
    with pytest.raises(DataError, match=message):
        build_dataset(replace(recipe, data=replace(recipe.data, source=source)))


def test_an_input_file_that_spark_cannot_read_is_one_clear_error(
    spark: SparkSession, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 this is no parquet file")
    source = Source("generic", interactions=TableFile(str(tmp_path / "torn.parquet")))
    recipe = make_recipe("a\n")
    with pytest.raises(DataError, match=r"torn\.parquet") as raised:
        build_dataset(replace(recipe, data=replace(recipe.data, source=source)))
    assert "\n" not in str(raised.value)


def test_the_commands_print_a_summary_or_json_and_check_names_what_is_broken(
    spark: SparkSession,
    make_recipe: MakeRecipe,
    weekly_events: str,
    weekly_items: str,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(weekly_events, weekly_items)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    runner = CliRunner()
    built = runner.invoke(data_command, ["build", str(path), "--json"])
    assert built.exit_code == 0, built.output
    result = json.loads(built.stdout)
    assert (result["status"], result["counts"]["kept"]) == ("built", 360)
    told = runner.invoke(data_command, ["build", str(path)])
    assert told.stdout.startswith("dataset as of 2017-07-23: inputs, recipe and versions are")
    assert "{" not in told.stdout
    checked = runner.invoke(data_command, ["check", str(path), "--json"])
    assert checked.exit_code == 0, checked.output
    assert set(json.loads(checked.stdout)["failures"].values()) == {0}
    lines = runner.invoke(data_command, ["check", str(path)]).stdout.splitlines()
    assert all(line.startswith("  ok ") for line in lines[1:])
    stricter = runner.invoke(data_command, ["check", str(path), "--set", "data.pairs.top_n=1"])
    assert isinstance(stricter.exception, DataError)
    assert "pairs: at most top_n per item" in str(stricter.exception)
