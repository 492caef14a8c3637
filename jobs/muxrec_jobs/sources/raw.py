"""What every reader of raw data hands over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec.recipe.model import Source
from muxrec_jobs.schemas import MALFORMED, RAW_EVENT, id_text, time_text


def as_they_are(items: DataFrame, _train_end: int) -> DataFrame:
    """The items without anything added."""
    return items


@dataclass(frozen=True)
class Raw:
    """Raw data of one source.

    Attributes:
        interactions: Rows of ``schemas.RAW_EVENT``.
        catalogue: ``item_id`` text, typed columns, ``schemas.MALFORMED``; None without a catalogue.
        enrich: Adds columns that depend on time to the checked items, given the last second of the
            training slice, so that nothing later than training leaks into an item.
        beside: Rows of ``schemas.REJECTED``: lines of side files and values of kept items that
            cannot be used; None where the source has no such things.
    """

    interactions: DataFrame
    catalogue: DataFrame | None
    enrich: Callable[[DataFrame, int], DataFrame] = as_they_are
    beside: DataFrame | None = None


class Reader(Protocol):
    """A kind of source."""

    def paths(self, source: Source) -> list[Path]:
        """Files and picture folders that decide the result, for the manifest's fingerprints.

        Raises:
            DataError: Something that the source needs is not there.
        """
        ...

    def read(self, spark: SparkSession, source: Source) -> Raw:
        """The raw data, lazily.

        Raises:
            DataError: A file or a required column is missing.
        """
        ...


def source_folder(source: Source) -> Path:
    """The folder of a source that is one.

    Raises:
        DataError: No path is given or it is not a folder.
    """
    if source.path is None:
        raise DataError(f"data.source.path must name the folder of a {source.kind} source")
    folder = Path(source.path)
    if not folder.is_dir():
        raise DataError(f"data.source.path: {folder} is not a folder")
    return folder.resolve()


def raw_events(table: DataFrame, columns: dict[str, str], *, origin: str) -> DataFrame:
    """Rows of ``RAW_EVENT`` from a table that calls its columns by other names.

    Args:
        table: Any table with a ``MALFORMED`` column.
        columns: Canonical name -> name in ``table``; absent names are taken as they are.
        origin: File or folder, for the message.

    Raises:
        DataError: ``user_id``, ``item_id``, ``timestamp`` or a mapped column is missing.
    """
    found = {name: columns.get(name, name) for name in ("user_id", "item_id", "timestamp")}
    found |= {n: columns.get(n, n) for n in ("event_type", "weight")}
    optional = {n for n in ("event_type", "weight") if n not in columns}
    for name, column in found.items():
        if column not in table.columns and name not in optional:
            known = ", ".join(c for c in table.columns if c != MALFORMED)
            raise DataError(
                f"{origin}: no column {column} for {name} (columns: {known}): "
                "map it in data.source.interactions.columns"
            )
    kinds = {field.name: field.dataType for field in table.schema.fields}
    values = {
        name: F.col(f"`{column}`") if column in kinds else F.lit(None).cast("string")
        for name, column in found.items()
    }
    own = [F.col(f"`{c}`") for c in table.columns if c != MALFORMED]
    broken = F.to_json(F.struct(F.col(MALFORMED).alias("line")))
    is_malformed = F.col(MALFORMED).isNotNull()
    default_weight = F.lit("1") if found["weight"] not in kinds else values["weight"].cast("string")
    return table.select(
        id_text(values["user_id"], kinds[found["user_id"]]).alias("user_id"),
        id_text(values["item_id"], kinds[found["item_id"]]).alias("item_id"),
        time_text(values["timestamp"], kinds[found["timestamp"]]).alias("timestamp"),
        F.coalesce(values["event_type"].cast("string"), F.lit("event")).alias("event_type"),
        default_weight.alias("weight"),
        F.when(is_malformed, broken).otherwise(F.to_json(F.struct(*own))).alias("row"),
        is_malformed.alias("is_malformed"),
    ).to(RAW_EVENT)
