"""The item table: the checked catalogue, its keys, and what training saw of each item."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec_jobs.hashing import id_key
from muxrec_jobs.schemas import MADE_ITEM_COLUMNS
from muxrec_jobs.sources.column_types import as_list


def items_of_events(events: DataFrame) -> DataFrame:
    """A catalogue of the items that occur in ``events``, for a source without one."""
    return events.select("item_id").distinct()


def with_relations(items: DataFrame, relations: dict[str, str]) -> DataFrame:
    """The items with every relation's column as list<string>.

    Raises:
        DataError: A relation names a column that the catalogue lacks.
    """
    for name, column in relations.items():
        if column not in items.columns:
            raise DataError(
                f"data.source.relations.{name}: the catalogue has no column {column} "
                f"(columns: {', '.join(items.columns)})"
            )
        items = items.withColumn(column, as_list(items, column))
    return items


def item_table(items: DataFrame, events: DataFrame, pairs: DataFrame) -> DataFrame:
    """The items with ``item_key``, ``train_events``, ``test_events`` and ``is_cold``.

    Args:
        items: Checked, distinct ``item_id`` and the catalogue's columns.
        events: Events with ``split`` and ``item_key``.
        pairs: Top pairs; an item absent from its training pairs is cold.

    Raises:
        DataError: The catalogue already has one of these columns.
    """
    taken = sorted(set(MADE_ITEM_COLUMNS) & set(items.columns))
    if taken:
        raise DataError(f"the catalogue's column {taken[0]} is made by the job: rename it")
    counts = events.groupBy("item_key").agg(
        F.count_if(F.col("split") == "train").alias("train_events"),
        F.count_if(F.col("split") == "test").alias("test_events"),
    )
    warm = pairs.where("split = 'train'").select(F.col("item_a").alias("item_key")).distinct()
    known = items.withColumn("item_key", id_key(F.col("item_id")))
    joined = known.join(counts, "item_key", "left").join(
        warm.withColumn("is_warm", F.lit(True)), "item_key", "left"
    )
    return joined.select(
        "item_id",
        "item_key",
        *[F.col(f"`{c}`") for c in items.columns if c not in ("item_id", "reason", "row")],
        *[F.coalesce(c, F.lit(0)).alias(c) for c in ("train_events", "test_events")],
        F.col("is_warm").isNull().alias("is_cold"),
    )
