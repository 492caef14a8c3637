"""A MovieLens folder: ratings and movies, and whatever describes the movies beside them."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec.recipe.model import Source
from muxrec_jobs.schemas import MALFORMED
from muxrec_jobs.sources.files import read_csv
from muxrec_jobs.sources.movielens_items import (
    add_credits,
    add_posters,
    add_tags,
    add_text,
    movie_columns,
    unusable_lines,
)
from muxrec_jobs.sources.raw import Raw, raw_events, source_folder

RATING_COLUMNS = {
    "user_id": "userId",
    "item_id": "movieId",
    "timestamp": "timestamp",
    "weight": "rating",
}
OPTIONAL = ("tags.csv", "links.csv", "omdb_metadata.jsonl", "imdb5000_metadata.csv", "posters")


class MovielensReader:
    """Reads ``ratings.csv`` + ``movies.csv``, or ``ratings.dat`` + ``movies.dat`` of older sets."""

    def paths(self, source: Source) -> list[Path]:
        """The two tables and the descriptions that are there."""
        folder = source_folder(source)
        extra = [folder / name for name in OPTIONAL if (folder / name).exists()]
        return [_ratings(folder), _movies(folder), *extra]

    def read(self, spark: SparkSession, source: Source) -> Raw:
        """Ratings as events; movies with everything that describes them.

        Columns: title (without the year), year, genres, plot, director, actors, keywords, text
        (title, genres, plot, keywords), image_path, and tags: only those given up to the last
        second of the training slice, so that no later opinion leaks into an item.

        Raises:
            DataError: There are only pairs without time, from which no global time split follows.
        """
        folder = source_folder(source)
        ratings, movies = _ratings(folder), _movies(folder)
        events = _table(spark, ratings, ["userId", "movieId", "rating", "timestamp"])
        raw = raw_events(events, RATING_COLUMNS, origin=str(ratings))
        items = movie_columns(_table(spark, movies, ["movieId", "title", "genres"]))
        items = add_posters(add_text(add_credits(items, folder)), folder)

        def enrich(checked: DataFrame, train_end: int) -> DataFrame:
            return add_tags(checked, folder, train_end=train_end)

        rated = raw.withColumn("event_type", F.lit("rating"))
        return Raw(rated, items, enrich, beside=unusable_lines(items, folder))


def _ratings(folder: Path) -> Path:
    found = _first(folder, "ratings.csv", "ratings.csv.gz", "ratings.dat", "ratings.dat.gz")
    if found is None and (folder / "pairs.parquet").is_file():
        raise DataError(
            f"{folder} holds (user, movie) pairs without time: no time split follows from them and "
            "none is made up. Add ratings.csv or ratings.dat, or measure with `muxrec bench pairs`"
        )
    if found is None:
        raise DataError(f"{folder} holds no ratings.csv and no ratings.dat")
    return found


def _movies(folder: Path) -> Path:
    found = _first(folder, "movies.csv", "movies.csv.gz", "movies.dat", "movies.dat.gz")
    if found is None:
        raise DataError(f"{folder} holds no movies.csv and no movies.dat")
    return found


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _table(spark: SparkSession, file: Path, names: list[str]) -> DataFrame:
    if ".dat" not in file.suffixes:
        return read_csv(spark, [file])
    # The .dat files are Latin-1 and have no header.
    reader = spark.read.option("encoding", "ISO-8859-1").option("sep", "::").option("quote", "")
    schema = ", ".join(f"{name} string" for name in [*names, MALFORMED])
    options = {"columnNameOfCorruptRecord": MALFORMED, "columnPruning": False}
    return reader.options(**options).schema(schema).csv(str(file))
