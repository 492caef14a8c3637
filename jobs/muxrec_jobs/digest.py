"""The content digest of tables: equal for equal rows, whatever their order, files or partitions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T


def table_prints(tables: dict[str, DataFrame]) -> dict[str, dict[str, str]]:
    """Name -> row count, sum and exclusive-or of the rows' hashes, of all tables in one pass.

    A table whose columns are all constants or that has no rows gives zeros.
    """
    parts = [
        table.select(F.lit(name).alias("name"), _row_hash(table).alias("h"))
        for name, table in tables.items()
    ]
    rows = (
        reduce(DataFrame.unionAll, parts)
        .groupBy("name")
        .agg(
            F.count("*").alias("rows"),
            F.sum(F.col("h").cast("decimal(20,0)")).cast("string").alias("sum"),
            F.bit_xor("h").cast("string").alias("xor"),
        )
    )
    found = {
        row["name"]: {k: str(row[k]) for k in ("rows", "sum", "xor")} for row in rows.collect()
    }
    return {name: found.get(name, {"rows": "0", "sum": "0", "xor": "0"}) for name in tables}


def _row_hash(table: DataFrame) -> Column:
    return F.xxhash64(*_unambiguous(table.schema.fields))


def _unambiguous(fields: Iterable[T.StructField]) -> list[Column]:
    """Columns, names and null flags: xxhash64 skips nulls and runs neighbouring lists together."""
    columns = []
    for field in sorted(fields, key=lambda field: field.name):
        column = F.col(f"`{field.name}`")
        columns += [F.lit(field.name), column.isNull(), _location_free(field.name, column)]
        if isinstance(field.dataType, T.ArrayType | T.MapType):
            columns.append(F.size(column))
    return columns


def _location_free(name: str, column: Column) -> Column:
    """A picture's file name without its folder, so that moved inputs keep their digest."""
    if name != "image_path":
        return column
    return F.element_at(F.split(column.cast("string"), "/"), -1)
