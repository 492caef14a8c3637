"""Declared checks: which rows are refused, and why. Nothing goes without a reason and a count."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec_jobs.hashing import id_key
from muxrec_jobs.schemas import EVENT, MALFORMED

EVENT_CHECKS = {
    "malformed_row": "is_malformed",
    "missing_user_id": "user_id is null or trim(user_id) = ''",
    "missing_item_id": "item_id is null or trim(item_id) = ''",
    "unreadable_timestamp": "seconds is null",
    "non_positive_timestamp": "seconds <= 0",
    "future_timestamp": "seconds > {now}",
    "invalid_weight": "number is null or isnan(number) or abs(number) = double('Infinity')",
    "item_not_in_catalogue": "not is_in_catalogue",
}
"""Reason -> SQL condition, in order; a row gets the first reason that holds."""

DUPLICATE_EVENT = "duplicate_event"
DUPLICATE_ITEM = "duplicate_item"
EVENT_KEY = ("user_id", "item_id", "timestamp", "event_type")


@dataclass(frozen=True)
class Counts:
    """What the event checks found.

    Attributes:
        read: Rows read.
        rejected: Reason -> rows, only reasons that occurred.
        last: Timestamp of the latest kept event, None when none was kept.
    """

    read: int
    rejected: dict[str, int]
    last: int | None

    @property
    def kept(self) -> int:
        """Rows that passed every check."""
        return self.read - sum(self.rejected.values())


def check_events(raw: DataFrame, item_ids: DataFrame | None, *, now: int) -> DataFrame:
    """Every raw event with its ``reason`` (null where sound) and, where refused, its ``row``.

    Args:
        raw: Rows of ``schemas.RAW_EVENT``.
        item_ids: One column ``item_id``, distinct; None when there is no catalogue.
        now: Seconds since 1970; later events are refused as mistakes.

    Returns:
        Columns of ``schemas.EVENT`` plus ``reason`` and ``row`` (JSON, null for sound rows).
    """
    typed = raw.withColumns({"seconds": _seconds(F.col("timestamp")), "number": _number()})
    known = typed.withColumn("is_in_catalogue", F.lit(True))
    if item_ids is not None:
        flagged = item_ids.withColumn("found", F.lit(True))
        joined = typed.join(flagged, "item_id", "left")
        known = joined.withColumn("is_in_catalogue", F.col("found").isNotNull())
    conditions = [
        F.when(F.expr(condition.format(now=now)), F.lit(reason))
        for reason, condition in EVENT_CHECKS.items()
    ]
    reason = F.coalesce(*conditions)
    checked = known.withColumn("reason", reason).select(
        *_event_columns(),
        "reason",
        F.when(F.col("reason").isNotNull(), F.col("row")).alias("row"),
    )
    return _refuse_duplicates(checked)


def count_events(checked: DataFrame) -> Counts:
    """Rows read and refused, by one pass over checked events."""
    last = F.max("timestamp").alias("last")
    rows = checked.groupBy("reason").agg(F.count("*").alias("rows"), last).collect()
    last = next((row["last"] for row in rows if row["reason"] is None), None)
    rejected = {row["reason"]: row["rows"] for row in rows if row["reason"] is not None}
    return Counts(sum(row["rows"] for row in rows), dict(sorted(rejected.items())), last)


def enforce(counts: Counts, *, max_rejected: float, origin: str) -> None:
    """Refuses input that is empty or broken beyond the declared share.

    Raises:
        DataError: Nothing was read or kept, or more than ``max_rejected`` was refused.
    """
    if counts.read == 0:
        raise DataError(f"{origin}: the interactions are empty")
    refused = sum(counts.rejected.values())
    reasons = ", ".join(f"{reason} {rows}" for reason, rows in counts.rejected.items())
    if refused > max_rejected * counts.read or counts.kept == 0:
        raise DataError(
            f"{origin}: {refused} of {counts.read} interaction rows refused ({reasons}), "
            f"data.max_rejected allows {max_rejected:.1%}: repair the input or raise it"
        )


def check_items(catalogue: DataFrame) -> DataFrame:
    """Every catalogue row with its ``reason``, null where sound; of a repeated id one row is sound.

    Args:
        catalogue: A source's catalogue with ``schemas.MALFORMED``.
    """
    own = [F.col(f"`{c}`") for c in catalogue.columns if c != MALFORMED]
    broken = F.to_json(F.struct(F.col(MALFORMED).alias("line")))
    row = F.when(F.col(MALFORMED).isNotNull(), broken).otherwise(F.to_json(F.struct(*own)))
    is_missing = F.col("item_id").isNull() | (F.trim("item_id") == "")
    reason = F.when(F.col(MALFORMED).isNotNull(), F.lit("malformed_row")).when(
        is_missing, F.lit("missing_item_id")
    )
    checked = catalogue.withColumns({"row": row, "reason": reason})
    nth = F.row_number().over(
        Window.partitionBy("item_id", "reason", _spread("reason", "row")).orderBy("row")
    )
    again = F.when(F.col("reason").isNull() & (nth > 1), F.lit(DUPLICATE_ITEM))
    return checked.withColumn("reason", F.coalesce(F.col("reason"), again)).drop(MALFORMED)


def rejected_rows(checked: DataFrame, *, source: str) -> DataFrame:
    """The refused rows as ``schemas.REJECTED``."""
    refused = checked.where(F.col("reason").isNotNull())
    return refused.select(F.lit(source).alias("source"), "row", "reason")


def _refuse_duplicates(checked: DataFrame) -> DataFrame:
    # Refused rows are spread by their text, or all rows without a user would meet in one task.
    window = Window.partitionBy(*EVENT_KEY, _spread("reason", "row"))
    nth = F.row_number().over(window.orderBy(F.desc("weight")))
    is_again = F.col("reason").isNull() & (F.col("nth") > 1)
    canonical = F.to_json(F.struct(*EVENT_KEY, "weight"))
    return checked.withColumn("nth", nth).select(
        *EVENT.fieldNames(),
        F.when(is_again, F.lit(DUPLICATE_EVENT)).otherwise(F.col("reason")).alias("reason"),
        F.when(is_again, canonical).otherwise(F.col("row")).alias("row"),
    )


def _spread(reason: str, row: str) -> Column:
    return F.when(F.col(reason).isNotNull(), F.xxhash64(row))


def _event_columns() -> list[Column]:
    made = {
        "user_key": id_key(F.col("user_id")),
        "item_key": id_key(F.col("item_id")),
        "timestamp": F.col("seconds"),
        "weight": F.col("number"),
    }
    return [made.get(name, F.col(name)).alias(name) for name in EVENT.fieldNames()]


def _seconds(text: Column) -> Column:
    whole = text.try_cast("bigint")
    fraction = text.try_cast("double").try_cast("bigint")
    return F.coalesce(whole, fraction, F.unix_seconds(F.try_to_timestamp(text)))


def _number() -> Column:
    return F.col("weight").try_cast("double")
