"""Side files and values that cannot be used: set aside by reason, counted and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from muxrec.recipe.model import Data, Recipe, Source, Split
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec_jobs.build import build_dataset
from muxrec_jobs.quality import check_items
from muxrec_jobs.report import build_report
from muxrec_jobs.sources import READERS
from muxrec_jobs.sources.raw import Raw

pytestmark = pytest.mark.spark


def read(spark: SparkSession, kind: str, folder: Path) -> Raw:
    return READERS[kind].read(spark, Source(kind=kind, path=str(folder)))


def test_side_file_lines_that_say_nothing_are_set_aside_by_reason(
    spark: SparkSession, movies: Path
) -> None:
    with (movies / "tags.csv").open("a", encoding="utf-8") as stream:
        stream.write(
            "5,,lost,500\n5,10,undated,\n5,10,,500\n,10,nobody,500\n5,10,torn,500,9\n5,99,far,500\n"
        )
    with (movies / "omdb_metadata.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"imdbId": "0000030", "Plot": \n')
    raw = read(spark, "movielens", movies)
    aside = {(row.source, row.reason): json.loads(row.row) for row in raw.beside.collect()}
    assert aside == {
        ("tags.csv", "missing_item_id"): {"userId": "5", "tag": "lost", "timestamp": "500"},
        ("tags.csv", "unreadable_timestamp"): {"userId": "5", "movieId": "10", "tag": "undated"},
        ("tags.csv", "missing_tag"): {"userId": "5", "movieId": "10", "timestamp": "500"},
        ("tags.csv", "missing_user_id"): {"movieId": "10", "tag": "nobody", "timestamp": "500"},
        ("tags.csv", "malformed_row"): {"line": "5,10,torn,500,9"},
        ("tags.csv", "item_not_in_catalogue"): {
            "userId": "5",
            "movieId": "99",
            "tag": "far",
            "timestamp": "500",
        },
        ("omdb_metadata.jsonl", "malformed_row"): {"line": '{"imdbId": "0000030", "Plot": '},
    }
    described = raw.enrich(check_items(raw.catalogue), 1000)
    tags = {row.item_id: row.tags for row in described.collect()}
    assert tags["10"] == ["quiet", "army"]


def test_recbole_values_that_are_no_numbers_are_set_aside_and_their_item_kept(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n")
    (tmp_path / "x.item").write_text(
        "item_id:token\tprice:float\tvec:float_seq\n2\tcheap\t1 two\n3\t1e2\t1 2\n4\t\t\n"
    )
    raw = read(spark, "recbole", tmp_path)
    found = {row.item_id: (row.price, row.vec) for row in raw.catalogue.collect()}
    assert found == {"2": (None, None), "3": (100.0, [1.0, 2.0]), "4": (None, None)}
    aside = raw.beside.orderBy("row").collect()
    assert {(row.source, row.reason) for row in aside} == {("item_values", "unreadable_number")}
    assert [json.loads(row.row) for row in aside] == [
        {"item_id:token": "2", "price:float": "cheap"},
        {"item_id:token": "2", "vec:float_seq": "1 two"},
    ]


def test_what_is_set_aside_is_counted_in_the_manifest_and_kept(
    spark: SparkSession, movies: Path, tmp_path: Path
) -> None:
    days = [
        f"{user},{10 * item},4.0,{86400 * day}"
        for day in range(1, 11)
        for user in (1, 2)
        for item in (1, 2)
    ]
    (movies / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *days]))
    (movies / "tags.csv").write_text("userId,movieId,tag,timestamp\n5,,lost,500\n5,,gone,600\n")
    recipe = Recipe(
        "movies",
        Data(Source("movielens", path=str(movies)), split=Split(0.6, 0.2)),
        (FeatureSpec("item", "id", ("item_id",), "id", table="items"),),
        (TableSpec("items", "full", 8),),
        output=str(tmp_path / "out"),
    )
    built = build_dataset(recipe)
    assert built.snapshot.manifest["counts"]["set_aside"] == {"tags.csv": {"missing_item_id": 2}}
    assert built.snapshot.rejected()["source"].to_pylist() == ["tags.csv", "tags.csv"]
    assert "aside    tags.csv: missing_item_id 2" in build_report(built)
