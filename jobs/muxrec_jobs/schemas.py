"""The declared contracts of the tables that pass between the steps of the data job."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

RAW_EVENT = T.StructType(
    [
        T.StructField("user_id", T.StringType()),
        T.StructField("item_id", T.StringType()),
        T.StructField("timestamp", T.StringType()),
        T.StructField("event_type", T.StringType()),
        T.StructField("weight", T.StringType()),
        T.StructField("row", T.StringType()),
        T.StructField("is_malformed", T.BooleanType()),
    ]
)
"""Interactions as a source hands them over: text, not believed yet, with the raw row as JSON."""

EVENT = T.StructType(
    [
        T.StructField("user_id", T.StringType()),
        T.StructField("user_key", T.LongType()),
        T.StructField("item_id", T.StringType()),
        T.StructField("item_key", T.LongType()),
        T.StructField("timestamp", T.LongType()),
        T.StructField("event_type", T.StringType()),
        T.StructField("weight", T.DoubleType()),
    ]
)
"""Checked interactions: keys by the common hash, seconds since 1970 UTC, weight finite."""

SLICED_EVENT = T.StructType(
    [
        T.StructField("split", T.StringType()),
        T.StructField("user_key", T.LongType()),
        T.StructField("timestamp", T.LongType()),
        T.StructField("item_key", T.LongType()),
    ]
)
"""What pair mining reads."""

PARTIAL_PAIR = T.StructType(
    [
        T.StructField("split", T.StringType()),
        T.StructField("low", T.LongType()),
        T.StructField("high", T.LongType()),
        T.StructField("fixed_weight", T.LongType()),
        T.StructField("count", T.LongType()),
    ]
)
"""Pre-aggregated unordered pairs; ``low == high`` holds an item's own summed weight."""

REJECTED = T.StructType(
    [
        T.StructField("source", T.StringType()),
        T.StructField("row", T.StringType()),
        T.StructField("reason", T.StringType()),
    ]
)

MALFORMED = "_malformed"
"""Column with the text of a row that could not be taken apart; null for sound rows."""

MADE_ITEM_COLUMNS = ("item_key", "train_events", "test_events", "is_cold")
"""Item columns that the job makes; a catalogue must not bring its own."""


def id_text(column: Column, kind: T.DataType) -> Column:
    """An id column as text; whole floats (pandas' nullable integers) lose their ``.0``."""
    if isinstance(kind, T.FloatType | T.DoubleType):
        whole = column.try_cast("bigint")
        is_whole = whole.cast("double") == column.cast("double")
        return F.when(is_whole, whole.cast("string")).otherwise(column.cast("string"))
    return column.cast("string")


def time_text(column: Column, kind: T.DataType) -> Column:
    """A time column as text; timestamps and dates become seconds since 1970 UTC."""
    if isinstance(kind, T.TimestampType | T.TimestampNTZType | T.DateType):
        return F.unix_seconds(column.cast("timestamp")).cast("string")
    return column.cast("string")
