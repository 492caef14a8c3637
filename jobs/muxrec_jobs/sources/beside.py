"""What stands beside events and items and cannot be used: counted and kept like refused rows."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from muxrec_jobs.schemas import MALFORMED

MALFORMED_ROW = "malformed_row"
UNREADABLE_NUMBER = "unreadable_number"


def with_reason(table: DataFrame, checks: dict[str, Column]) -> DataFrame:
    """A side table with ``reason``: the first check that a row fails, null where it is usable.

    Args:
        table: Any table with a ``MALFORMED`` column.
        checks: Reason -> whether it holds, asked in order after ``malformed_row``.
    """
    tests = {MALFORMED_ROW: F.col(MALFORMED).isNotNull(), **checks}
    reasons = [F.when(holds, F.lit(reason)) for reason, holds in tests.items()]
    return table.withColumn("reason", F.coalesce(*reasons))


def unusable_rows(table: DataFrame, *, source: str) -> DataFrame:
    """Rows of ``schemas.REJECTED`` for the rows of a side table that have a ``reason``."""
    own = [F.col(f"`{c}`") for c in table.columns if c not in (MALFORMED, "reason")]
    broken = F.to_json(F.struct(F.col(MALFORMED).alias("line")))
    row = F.when(F.col(MALFORMED).isNotNull(), broken).otherwise(F.to_json(F.struct(*own)))
    refused = table.where(F.col("reason").isNotNull())
    return refused.select(F.lit(source).alias("source"), row.alias("row"), "reason")


def unreadable_numbers(items: DataFrame, wrong: dict[str, Column], *, key: str) -> DataFrame:
    """Rows of ``schemas.REJECTED``, one per value of a kept item that is no number.

    Args:
        items: Raw items with a ``MALFORMED`` column.
        wrong: Column -> whether its value cannot be read.
        key: Column with the item's id.
    """
    cells = [
        F.when(is_wrong, F.to_json(F.struct(F.col(f"`{key}`"), F.col(f"`{name}`"))))
        for name, is_wrong in wrong.items()
    ]
    found = items.where(F.col(MALFORMED).isNull()).select(
        F.explode(F.array_compact(F.array(*cells))).alias("row")
    )
    reason = F.lit(UNREADABLE_NUMBER).alias("reason")
    return found.select(F.lit("item_values").alias("source"), "row", reason)


def together(parts: list[DataFrame]) -> DataFrame | None:
    """All rows of ``parts``, or None where there is no part."""
    return reduce(DataFrame.unionAll, parts) if parts else None
