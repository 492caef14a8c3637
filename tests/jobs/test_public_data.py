"""The job on real public logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from muxrec.recipe.model import Data, Pairs, Recipe, Source, TableFile
from muxrec_jobs.build import build_dataset
from muxrec_jobs.check import check_snapshot
from muxrec_jobs.local_pairs import mine_pairs

pytestmark = [pytest.mark.spark, pytest.mark.data, pytest.mark.slow]


@pytest.mark.parametrize("pairs", [Pairs(), Pairs(window_events=3, min_weight=4.0, min_count=2)])
def test_movielens_100k_pairs_equal_the_local_engine(
    spark: SparkSession, public_data: Path, tmp_path: Path, pairs: Pairs
) -> None:
    source = Source("recbole", path=str(public_data / "movielens-100k"))
    recipe = Recipe("ml", Data(source, pairs=pairs), (), output=str(tmp_path))
    snapshot = build_dataset(recipe).snapshot
    assert snapshot.manifest["counts"]["kept"] == 100_000
    assert snapshot.items().num_rows == 1_682
    for split in ("train", "validation", "test"):
        events = snapshot.events(split)
        columns = [events[n].to_numpy() for n in ("user_key", "timestamp", "item_key")]
        expected = mine_pairs(*columns, pairs, weight=events["weight"].to_numpy())
        assert expected.num_rows
        assert snapshot.pairs(split).equals(expected)
    assert set(check_snapshot(snapshot, recipe.data).values()) == {0}


def test_grocery_relations_name_items_of_the_catalogue(
    spark: SparkSession, public_data: Path, tmp_path: Path
) -> None:
    folder = public_data / "grocery"
    source = Source(
        "generic",
        interactions=TableFile(str(folder / "train.csv.gz"), "csv", "\t", {"timestamp": "time"}),
        items=TableFile(str(folder / "item_meta.csv.gz"), "csv", "\t"),
        relations={"complement": "r_complement", "substitute": "r_substitute"},
    )
    data = Data(source, partition="year")
    snapshot = build_dataset(Recipe("grocery", data, (), output=str(tmp_path))).snapshot
    items = snapshot.items()
    ids = set(items["item_id"].to_pylist())
    related = [i for column in ("r_complement", "r_substitute") for i in _flat(items[column])]
    assert items.num_rows == 8_713
    assert len(related) > 100_000
    assert sum(i in ids for i in related) > 0.99 * len(related)
    first = dict(zip(items["item_id"].to_pylist(), items["r_substitute"].to_pylist(), strict=True))
    assert first["1"] == ["6285", "194", "4169", "6068", "2286", "6426", "6191"]


def _flat(column) -> list[str]:
    return [value for values in column.to_pylist() if values for value in values]
