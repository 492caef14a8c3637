"""Every kind of raw source, on small files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from muxrec.errors import DataError
from muxrec.recipe.model import Source, TableFile
from muxrec_jobs.quality import check_items
from muxrec_jobs.schemas import MALFORMED
from muxrec_jobs.sources import READERS

pytestmark = pytest.mark.spark


def rows_of(table, *, by: str) -> dict:
    return {row[by]: row.asDict(recursive=True) for row in table.collect()}


def read(spark: SparkSession, **source):
    made = Source(**source)
    return READERS[made.kind].read(spark, made)


def test_a_movielens_folder_becomes_events_and_described_items(
    spark: SparkSession, movies: Path
) -> None:
    raw = read(spark, kind="movielens", path=str(movies))
    events = rows_of(raw.interactions, by="user_id")
    assert events["2"]["weight"] == "0.5"
    assert events["2"]["event_type"] == "rating"
    items = rows_of(raw.catalogue.drop(MALFORMED), by="item_id")
    assert items["10"] == {
        "item_id": "10",
        "title": "Silence, The",
        "year": 1999,
        "genres": ["Drama", "War"],
        "plot": "Guns.",
        "keywords": ["war", "peace"],
        "director": ["A One", "B Two"],
        "actors": ["X", "Z"],
        "text": "Silence, The Drama War Guns. war peace",
        "image_path": str(movies / "posters" / "10.jpg"),
    }
    bare = items["20"]
    assert (bare["title"], bare["year"], bare["genres"], bare["plot"]) == (
        "Nameless",
        None,
        None,
        None,
    )
    assert bare["actors"] == ["C Three"]
    assert bare["image_path"] is None
    assert (items["30"]["title"], items["30"]["year"]) == ("Series", 2006)


def test_tags_given_after_the_training_cut_never_reach_an_item(
    spark: SparkSession, movies: Path
) -> None:
    raw = read(spark, kind="movielens", path=str(movies))
    items = check_items(raw.catalogue)
    before = rows_of(raw.enrich(items, 1000), by="item_id")
    assert before["10"]["tags"] == ["quiet", "army"]
    assert before["20"]["tags"] is None
    after = rows_of(raw.enrich(items, 1500), by="item_id")
    assert after["10"]["tags"] == ["quiet", "army", "later"]
    assert after["20"]["tags"] == ["only later"]


def test_the_old_movielens_form_is_read_with_its_encoding(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"1::10::5::978300760\n2::11::3\n")
    with gzip.open(tmp_path / "movies.dat.gz", "wb") as stream:
        stream.write("10::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"))
    raw = read(spark, kind="movielens", path=str(tmp_path))
    assert [row.is_malformed for row in raw.interactions.orderBy("user_id").collect()] == [
        False,
        True,
    ]
    item = raw.catalogue.collect()[0]
    assert (item.title, item.year, item.genres) == ("Misérables, Les", 1995, ["Drama", "Musical"])


def test_pairs_without_time_are_refused_and_nothing_is_made_up(
    spark: SparkSession, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"userID": ["1"], "movieID": ["2"]}), tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match="pairs without time: no time split follows"):
        READERS["movielens"].paths(Source("movielens", path=str(tmp_path)))


def test_recbole_files_are_typed_by_their_headers(spark: SparkSession, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.inter.gz", "wt", encoding="utf-8") as stream:
        stream.write(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ti2\t3\t881250949.0\n"
        )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\tprice:float\tclass:token_seq\tvec:float_seq\n"
        'i2\tThe "Big" One\t1.5\tAction Drama\t0.5 1\ni3\t\t\t\t\n',
        encoding="utf-8",
    )
    raw = read(spark, kind="recbole", path=str(tmp_path))
    event = raw.interactions.collect()[0]
    assert (event.user_id, event.item_id, event.weight) == ("1", "i2", "3")
    items = rows_of(raw.catalogue.drop(MALFORMED), by="item_id")
    assert items["i2"] == {
        "item_id": "i2",
        "movie_title": ["The", '"Big"', "One"],
        "price": 1.5,
        "class": ["Action", "Drama"],
        "vec": [0.5, 1.0],
        "title": 'The "Big" One',
        "text": 'The "Big" One Action Drama',
    }
    assert items["i3"]["class"] is None
    assert items["i3"]["title"] is None


def test_a_recbole_header_without_a_type_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n")
    (tmp_path / "x.item").write_text("item_id:token\ttitle\n2\tx\n")
    with pytest.raises(DataError, match=r"title: is not name:type"):
        read(spark, kind="recbole", path=str(tmp_path))


def test_csv_columns_are_mapped_typed_and_torn_rows_marked(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "e.csv").write_text("who;what;when\nu1;1;100\nu1;2\nu2;3;300;9\n", encoding="utf-8")
    (tmp_path / "i.csv").write_text(
        'item_id,code,n,price,related,note,image_path\n1,007,3,1.5,"[6, 7]",a|b,p/1.jpg\n'
        '2,010,-4,2,[],"two\nlines",/abs/2.jpg\n3,,,,,,\n',
        encoding="utf-8",
    )
    names = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    events = TableFile(str(tmp_path / "e.csv"), "csv", ";", names)
    raw = read(
        spark, kind="generic", interactions=events, items=TableFile(str(tmp_path / "i.csv"), "csv")
    )
    found = raw.interactions.orderBy("row").collect()
    assert sorted(row.is_malformed for row in found) == [False, True, True]
    assert {row.row for row in found if row.is_malformed} == {
        '{"line":"u1;2"}',
        '{"line":"u2;3;300;9"}',
    }
    items = rows_of(raw.catalogue.drop(MALFORMED), by="item_id")
    assert items["1"] == {
        "item_id": "1",
        "code": "007",
        "n": 3,
        "price": 1.5,
        "related": ["6", "7"],
        "note": "a|b",
        "image_path": str(tmp_path / "p" / "1.jpg"),
    }
    assert items["2"]["note"] == "two\nlines"
    assert items["2"]["image_path"] == "/abs/2.jpg"
    assert set(items["3"].values()) == {"3", None}


def test_parquet_ids_that_became_floats_lose_their_zero(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "user_id": pa.array([1.0, 2.5, None], pa.float64()),
            "item_id": pa.array([7, 8, 9], pa.int32()),
            "timestamp": pa.array([1_500_000_000_000_000] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, tmp_path / "e.parquet")
    raw = read(spark, kind="generic", interactions=TableFile(str(tmp_path)))
    found = [
        (r.user_id, r.item_id, r.timestamp) for r in raw.interactions.orderBy("item_id").collect()
    ]
    seconds = "1500000000"
    assert found == [("1", "7", seconds), ("2.5", "8", seconds), (None, "9", seconds)]


def test_json_lines_that_are_not_json_are_marked(spark: SparkSession, tmp_path: Path) -> None:
    text = '{"user_id": "u", "item_id": 3, "timestamp": 5}\nnot json\n'
    (tmp_path / "e.jsonl").write_text(text, encoding="utf-8")
    raw = read(spark, kind="generic", interactions=TableFile(str(tmp_path / "e.jsonl"), "jsonl"))
    assert sorted(row.is_malformed for row in raw.interactions.collect()) == [False, True]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "generic"}, "interactions must be given"),
        (
            {"kind": "generic", "interactions": TableFile("gone.csv", "csv")},
            "gone.csv is not a file",
        ),
        ({"kind": "movielens"}, "path must name the folder"),
        ({"kind": "recbole", "path": "gone"}, "gone is not a folder"),
    ],
)
def test_missing_input_is_named(spark: SparkSession, source: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(spark, **source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: a header line was expected"),
        ("a,a\n1,2\n", "names a column twice"),
        ("user,item_id,timestamp\n1,2,3\n", "no column user_id for user_id"),
    ],
)
def test_a_wrong_header_is_named(
    spark: SparkSession, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "e.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(spark, kind="generic", interactions=TableFile(str(tmp_path / "e.csv"), "csv"))


def test_csv_files_with_different_headers_never_mix(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,3\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("item_id,user_id,timestamp\n1,2,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.csv has another header"):
        read(spark, kind="generic", interactions=TableFile(str(tmp_path / "*.csv"), "csv"))
