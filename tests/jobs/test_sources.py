"""Every kind of raw source, on small files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from muxrec.errors import DataError
from muxrec.recipe.model import Data, Recipe, Source, Split, TableFile
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec_jobs.build import build_dataset
from muxrec_jobs.quality import check_items
from muxrec_jobs.report import build_report
from muxrec_jobs.schemas import MALFORMED
from muxrec_jobs.sources import READERS

pytestmark = pytest.mark.spark


def rows_of(table, *, by: str) -> dict:
    return {row[by]: row.asDict(recursive=True) for row in table.collect()}


def read(spark: SparkSession, **source):
    made = Source(**source)
    return READERS[made.kind].read(spark, made)


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,1000\n2,20,0.5,2000\n",
        "movies.csv": (
            "movieId,title,genres\n"
            '10,"Silence, The (1999)",Drama|War\n'
            "20,Nameless,(no genres listed)\n"
            "30,Series (2006-2007),Comedy\n"
        ),
        "tags.csv": (
            "userId,movieId,tag,timestamp\n"
            "1,10,Quiet,500\n2,10, quiet ,600\n3,10,army,700\n"
            "4,10,later,1001\n4,20,only later,1500\n"
        ),
        "links.csv": "movieId,imdbId,tmdbId\n10,0000010,1\n20,0000020,2\n30,0000030,\n",
        "omdb_metadata.jsonl": (
            '{"imdbId": "0000010", "Director": "A One, B Two", "Actors": "N/A", "Plot": "Guns."}\n'
            '{"imdbId": "0000020", "Director": "N/A", "Actors": "C Three", "Plot": "N/A"}\n'
        ),
        "imdb5000_metadata.csv": (
            "director_name,actor_1_name,actor_2_name,actor_3_name,plot_keywords,movie_imdb_link\n"
            "Other,X,,Z,war|peace,http://www.imdb.com/title/tt0000010/?ref\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "10.jpg").write_bytes(b"picture")
    return tmp_path


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


def test_side_file_lines_that_say_nothing_are_set_aside_by_reason(
    spark: SparkSession, movies: Path
) -> None:
    with (movies / "tags.csv").open("a", encoding="utf-8") as stream:
        stream.write("5,,lost,500\n5,10,undated,\n5,10,,500\n,10,nobody,500\n5,10,torn,500,9\n")
    with (movies / "omdb_metadata.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"imdbId": "0000030", "Plot": \n')
    raw = read(spark, kind="movielens", path=str(movies))
    aside = {(row.source, row.reason): json.loads(row.row) for row in raw.beside.collect()}
    assert aside == {
        ("tags.csv", "missing_item_id"): {"userId": "5", "tag": "lost", "timestamp": "500"},
        ("tags.csv", "unreadable_timestamp"): {"userId": "5", "movieId": "10", "tag": "undated"},
        ("tags.csv", "missing_tag"): {"userId": "5", "movieId": "10", "timestamp": "500"},
        ("tags.csv", "missing_user_id"): {"movieId": "10", "tag": "nobody", "timestamp": "500"},
        ("tags.csv", "malformed_row"): {"line": "5,10,torn,500,9"},
        ("omdb_metadata.jsonl", "malformed_row"): {"line": '{"imdbId": "0000030", "Plot": '},
    }
    items = rows_of(raw.enrich(check_items(raw.catalogue), 1000), by="item_id")
    assert items["10"]["tags"] == ["quiet", "army"]


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


def test_recbole_values_that_are_no_numbers_are_set_aside_and_their_item_kept(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n")
    (tmp_path / "x.item").write_text(
        "item_id:token\tprice:float\tvec:float_seq\n2\tcheap\t1 two\n3\t1e2\t1 2\n4\t\t\n"
    )
    raw = read(spark, kind="recbole", path=str(tmp_path))
    items = rows_of(raw.catalogue.drop(MALFORMED), by="item_id")
    assert items["2"] == {"item_id": "2", "price": None, "vec": None}
    assert (items["3"]["price"], items["3"]["vec"]) == (100.0, [1.0, 2.0])
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
