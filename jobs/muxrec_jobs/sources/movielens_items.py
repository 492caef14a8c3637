"""What describes a movie: columns of the MovieLens folder's side files, joined to the movies."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from muxrec_jobs.schemas import MALFORMED
from muxrec_jobs.sources.beside import together, unusable_rows, with_reason
from muxrec_jobs.sources.files import read_csv

TITLE_AND_YEAR = r"^(.*?)\s*\(([0-9]{4})[^()]*\)\s*$"
NO_GENRES = "(no genres listed)"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
OMDB = f"imdbId string, Director string, Actors string, Plot string, {MALFORMED} string"
IMDB_LINK = r"/tt([0-9]+)"


def movie_columns(movies: DataFrame) -> DataFrame:
    """``item_id``, ``title`` without the year, ``year`` int and ``genres`` of raw movie rows."""
    title = F.trim("title")
    matches = title.rlike(TITLE_AND_YEAR)
    return movies.select(
        F.col("movieId").alias("item_id"),
        F.when(matches, F.regexp_extract(title, TITLE_AND_YEAR, 1)).otherwise(title).alias("title"),
        F.when(matches, F.regexp_extract(title, TITLE_AND_YEAR, 2)).try_cast("int").alias("year"),
        _parts(F.nullif(F.col("genres"), F.lit(NO_GENRES)), r"\|").alias("genres"),
        MALFORMED,
    )


def add_credits(items: DataFrame, folder: Path) -> DataFrame:
    """Adds ``plot``, ``director``, ``actors`` (OMDb first), ``keywords`` where files have them."""
    links, omdb = folder / "links.csv", folder / "omdb_metadata.jsonl"
    imdb = folder / "imdb5000_metadata.csv"
    if not links.is_file():
        return items
    spark = items.sparkSession
    linked = read_csv(spark, [links]).select(F.col("movieId").alias("item_id"), "imdbId")
    found = items.join(linked.dropDuplicates(["item_id"]), "item_id", "left")
    if omdb.is_file():
        found = found.join(_omdb(_read_omdb(spark, omdb)), "imdbId", "left")
    if imdb.is_file():
        found = found.join(_imdb(read_csv(spark, [imdb])), "imdbId", "left")
    columns = [F.col(c) for c in items.columns if c != MALFORMED]
    extra = {"plot": ["plot"], "keywords": ["keywords"]}
    extra |= {name: [f"omdb_{name}", f"imdb_{name}"] for name in ("director", "actors")}
    for name, sources in extra.items():
        there = [F.col(source) for source in sources if source in found.columns]
        columns += [F.coalesce(*there).alias(name)] if there else []
    return found.select(*columns, MALFORMED)


def add_text(items: DataFrame) -> DataFrame:
    """Adds ``text``: title, genres, plot and keywords, as far as they are there."""
    parts = [
        F.col(name) for name in ("title", "genres", "plot", "keywords") if name in items.columns
    ]
    return items.withColumn("text", F.concat_ws(" ", *parts))


def add_posters(items: DataFrame, folder: Path) -> DataFrame:
    """Adds ``image_path``, the absolute name of ``posters/<item_id>.jpg``, null without one."""
    files = sorted(p for p in folder.glob("posters/*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        return items
    names = {file.stem: str(file) for file in files}
    table = pa.table({"item_id": list(names), "image_path": list(names.values())})
    return items.join(items.sparkSession.createDataFrame(table), "item_id", "left")


def add_tags(items: DataFrame, folder: Path, *, train_end: int) -> DataFrame:
    """Adds ``tags`` given up to ``train_end``: lower case, those of most users first.

    Tags without a movie or a time cannot be placed before the cut; ``unusable_lines`` names them.
    """
    file = folder / "tags.csv"
    if not file.is_file():
        return items
    usable = _checked_tags(items.sparkSession, file).where(F.col("reason").isNull())
    tags = usable.select(
        F.col("movieId").alias("item_id"),
        F.lower(F.trim("tag")).alias("tag"),
        "userId",
        F.col("timestamp").try_cast("bigint").alias("timestamp"),
    )
    known = tags.where(F.col("timestamp") <= train_end)
    counted = known.groupBy("item_id", "tag").agg(F.countDistinct("userId").alias("users"))
    ordered = F.array_sort(F.collect_list(F.struct((-F.col("users")).alias("rank"), "tag")))
    by_item = counted.groupBy("item_id").agg(ordered["tag"].alias("tags"))
    return items.join(by_item, "item_id", "left")


def unusable_lines(movies: DataFrame, folder: Path) -> DataFrame | None:
    """Lines of the side files that say nothing about any movie, as ``schemas.REJECTED``."""
    spark, found = movies.sparkSession, []
    if (tags := folder / "tags.csv").is_file():
        checked = _checked_tags(spark, tags)
        known = movies.select(F.col("item_id").alias("movieId"))
        strangers = checked.where(F.col("reason").isNull()).join(known, "movieId", "left_anti")
        strangers = strangers.withColumn("reason", F.lit("item_not_in_catalogue"))
        found += [unusable_rows(part, source=tags.name) for part in (checked, strangers)]
    for file in (folder / "links.csv", folder / "imdb5000_metadata.csv"):
        if file.is_file():
            torn = with_reason(read_csv(spark, [file]), {})
            found.append(unusable_rows(torn, source=file.name))
    if (omdb := folder / "omdb_metadata.jsonl").is_file():
        torn = with_reason(_read_omdb(spark, omdb), {})
        found.append(unusable_rows(torn, source=omdb.name))
    return together(found)


def _checked_tags(spark: SparkSession, file: Path) -> DataFrame:
    def is_empty(name: str) -> Column:
        return F.col(name).isNull() | (F.trim(name) == "")

    checks = {
        "missing_user_id": is_empty("userId"),
        "missing_item_id": is_empty("movieId"),
        "missing_tag": is_empty("tag"),
        "unreadable_timestamp": F.col("timestamp").try_cast("bigint").isNull(),
    }
    return with_reason(read_csv(spark, [file]), checks)


def _read_omdb(spark: SparkSession, file: Path) -> DataFrame:
    reader = spark.read.schema(OMDB).option("columnNameOfCorruptRecord", MALFORMED)
    return reader.json(str(file))


def _omdb(rows: DataFrame) -> DataFrame:
    fields = [F.nullif(F.col(n), F.lit("N/A")).alias(n) for n in ("Plot", "Director", "Actors")]
    one = (
        rows.select("imdbId", *fields)
        .groupBy("imdbId")
        .agg(F.min(F.struct(*_OMDB_NAMES)).alias("m"))
    )
    return one.select(
        "imdbId",
        F.col("m.Plot").alias("plot"),
        _parts(F.col("m.Director"), r",\s*").alias("omdb_director"),
        _parts(F.col("m.Actors"), r",\s*").alias("omdb_actors"),
    )


_OMDB_NAMES = ("Plot", "Director", "Actors")


def _imdb(rows: DataFrame) -> DataFrame:
    actors = F.array_compact(F.array("actor_1_name", "actor_2_name", "actor_3_name"))
    shown = rows.select(
        F.regexp_extract("movie_imdb_link", IMDB_LINK, 1).alias("imdbId"),
        F.struct(
            _parts(F.col("plot_keywords"), r"\|").alias("keywords"),
            _parts(F.col("director_name"), r"\|").alias("imdb_director"),
            F.when(F.size(actors) > 0, actors).alias("imdb_actors"),
        ).alias("m"),
    )
    return (
        shown.where(F.col("imdbId") != "")
        .groupBy("imdbId")
        .agg(F.min("m").alias("m"))
        .select("imdbId", "m.*")
    )


def _parts(text: Column, separator: str) -> Column:
    parts = F.filter(F.transform(F.split(text, separator), F.trim), lambda part: part != "")
    return F.when(F.size(parts) > 0, parts)
