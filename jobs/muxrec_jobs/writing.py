"""Tables into a snapshot's folder: sorted, sized by content, plain file names, nothing else."""

from __future__ import annotations

import math
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

PAIRS_PER_FILE = 4_000_000
EVENTS_PER_FILE = 5_000_000
ROWS_PER_GROUP = 65_536
"""Rows of a parquet row group: the unit in which training shuffles pairs."""

DATE_FORMATS = {"day": "yyyy-MM-dd", "month": "yyyy-MM", "year": "yyyy"}


def write_items(items: DataFrame, folder: Path) -> None:
    """One file, sorted by key, so that a row's number is the item's position."""
    _write(items.coalesce(1).sortWithinPartitions("item_key"), folder)


def write_events(events: DataFrame, folder: Path, *, partition: str, rows: int) -> None:
    """Events by ``dt=<partition>``, inside a file by (time, user, item).

    Args:
        events: Events with ``split``.
        folder: Where to.
        partition: ``day``, ``month`` or ``year``.
        rows: How many events there are; decides whether a date is spread over several files.
    """
    time = F.timestamp_seconds("timestamp")
    dated = events.withColumn("dt", F.date_format(time, DATE_FORMATS[partition]))
    spread = F.pmod("user_key", F.lit(math.ceil(rows / EVENTS_PER_FILE)))
    order = ["dt", "timestamp", "user_key", "item_key", "event_type"]
    _write(dated.repartition("dt", spread).sortWithinPartitions(*order), folder, by="dt")


def write_pairs(pairs: DataFrame, folder: Path, *, most: int) -> None:
    """Pairs by ``split=<slice>``, inside a file by (item_a, score falling, item_b).

    Args:
        pairs: ``pairs.top_pairs``.
        folder: Where to.
        most: Upper bound of the pairs of one slice; with it the number of files is decided by the
            content, so that equal content gives equal files and equal batches.
    """
    files = max(1, math.ceil(most / PAIRS_PER_FILE))
    order = ["split", "item_a", F.desc("score"), "item_b"]
    _write(pairs.repartition(files, "item_a").sortWithinPartitions(*order), folder, by="split")


def write_rejected(rejected: DataFrame, folder: Path) -> None:
    """Refused rows, in as few files as their size allows."""
    _write(rejected.hint("rebalance"), folder)


def read_back(spark_table: DataFrame, folder: Path) -> DataFrame:
    """The rows just written to ``folder``, by the schema of ``spark_table``; none without files.

    Partition columns come back as text.
    """
    spark = spark_table.sparkSession
    if not any(folder.rglob("*.parquet")):
        return spark.createDataFrame([], spark_table.schema)
    schema = T.StructType([T.StructField(f.name, f.dataType) for f in spark_table.schema.fields])
    # Spark adds the partition column, which says how the rows are filed and nothing about them.
    return spark.read.schema(schema).parquet(str(folder)).select(*spark_table.columns)


def _write(table: DataFrame, folder: Path, *, by: str | None = None) -> None:
    writer = table.write.option("parquet.block.row.count.limit", ROWS_PER_GROUP)
    (writer.partitionBy(by) if by else writer).parquet(str(folder))
    _plain_names(folder)


def _plain_names(folder: Path) -> None:
    """Names files ``part-00000.parquet`` in the writer's order and removes its side files."""
    for path in [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".parquet"]:
        path.unlink()
    for inner in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        for number, file in enumerate(sorted(inner.glob("*.parquet"))):
            file.rename(inner / f"part-{number:05}.parquet")
