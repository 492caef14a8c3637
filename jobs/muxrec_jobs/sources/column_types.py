"""Types of csv columns, decided by what they hold; one pass over the catalogue."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from muxrec.data.keys import INTEGER

LIST = "array<string>"
KEPT_AS_TEXT = ("item_id", "title", "text", "image_path")


def typed_columns(table: DataFrame) -> DataFrame:
    """The table with its text columns as bigint, double or list<string> where every value is one.

    ``[1, 2]`` becomes a list of texts; ``007`` stays text, since a number would lose its zeros; the
    empty text becomes null. Ids, titles and texts are left alone.
    """
    names = [
        field.name
        for field in table.schema.fields
        if isinstance(field.dataType, T.StringType)
        and field.name not in KEPT_AS_TEXT
        and not field.name.startswith("_")
    ]
    if not names:
        return table
    counted = [_counts(name).alias(name) for name in names]
    row = table.agg(*counted).collect()[0]
    types = {name: _chosen(row[name].asDict()) for name in names}
    return table.select(
        *[
            _cast(name, types[name]) if name in types else F.col(f"`{name}`")
            for name in table.columns
        ]
    )


def as_list(table: DataFrame, name: str) -> Column:
    """A relation column as list<string>: a list's elements as text, a text split at ``|``."""
    kind = table.schema[name].dataType
    if isinstance(kind, T.ArrayType):
        return F.col(f"`{name}`").cast(LIST).alias(name)
    parts = F.split(F.col(f"`{name}`").cast("string"), r"\s*\|\s*")
    return F.filter(parts, lambda part: part != "").alias(name)


def _value(name: str) -> Column:
    return F.nullif(F.trim(F.col(f"`{name}`")), F.lit(""))


def _counts(name: str) -> Column:
    value = _value(name)
    is_list = value.startswith("[") & F.from_json(value, LIST).isNotNull()
    is_integer = value.rlike(rf"^(?:{INTEGER.pattern})\z") & value.try_cast("bigint").isNotNull()
    padded = value.rlike(r"^[+-]?0[0-9]")
    is_number = value.try_cast("double").isNotNull() & ~padded & ~F.isnan(value.try_cast("double"))
    return F.struct(
        F.count(value).alias("all"),
        F.count_if(is_list).alias("list"),
        F.count_if(is_integer).alias("integer"),
        F.count_if(is_number).alias("number"),
    )


def _chosen(counts: dict[str, int]) -> str:
    if counts["all"] == 0:
        return "string"
    for kind, name in (("list", LIST), ("integer", "bigint"), ("number", "double")):
        if counts[kind] == counts["all"]:
            return name
    return "string"


def _cast(name: str, kind: str) -> Column:
    value = _value(name)
    return (F.from_json(value, LIST) if kind == LIST else value.try_cast(kind)).alias(name)
