"""The generic source: one interactions table and, if there is one, one catalogue table."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from muxrec.errors import DataError
from muxrec.recipe.model import Source, TableFile
from muxrec_jobs.schemas import id_text
from muxrec_jobs.sources.column_types import typed_columns
from muxrec_jobs.sources.files import read_table, table_files
from muxrec_jobs.sources.raw import Raw, raw_events

IMAGE = "image_path"


class GenericReader:
    """Reads parquet, csv and JSON lines with a mapping of column names."""

    def paths(self, source: Source) -> list[Path]:
        """The files of both tables."""
        items = table_files(source.items) if source.items else []
        return [*table_files(_interactions(source)), *items]

    def read(self, spark: SparkSession, source: Source) -> Raw:
        """Both tables; pictures named relative to the catalogue's folder become absolute."""
        table = _interactions(source)
        events = raw_events(read_table(spark, table), table.columns, origin=table.path)
        return Raw(events, _catalogue(spark, source.items) if source.items else None)


def _interactions(source: Source) -> TableFile:
    if source.interactions is None:
        raise DataError("data.source.interactions must be given for a generic source")
    return source.interactions


def _catalogue(spark: SparkSession, table: TableFile) -> DataFrame:
    raw = read_table(spark, table, multiline=True)
    missing = [name for name in table.columns.values() if name not in raw.columns]
    if missing or table.columns.get("item_id", "item_id") not in raw.columns:
        name = missing[0] if missing else "item_id"
        raise DataError(
            f"{table.path}: no column {name} (columns: {', '.join(raw.columns)}): "
            "map it in data.source.items.columns"
        )
    named = raw.withColumnsRenamed({there: here for here, there in table.columns.items()})
    named = named.withColumn("item_id", id_text(F.col("item_id"), named.schema["item_id"].dataType))
    typed = typed_columns(named) if table.format == "csv" else named
    is_file = IMAGE in typed.columns and isinstance(typed.schema[IMAGE].dataType, T.StringType)
    if not is_file:
        return typed
    folder = table_files(table)[0].parent
    absolute = F.concat(F.lit(f"{folder}/"), F.col(IMAGE))
    return typed.withColumn(
        IMAGE, F.when(F.col(IMAGE).startswith("/"), F.col(IMAGE)).otherwise(absolute)
    )
