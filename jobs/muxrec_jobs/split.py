"""The global time split: exact quantiles of the event time, one second never on two sides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec.recipe.model import Split

DAY = 86_400


@dataclass(frozen=True)
class Boundaries:
    """Where the time line is cut, in seconds since 1970.

    Attributes:
        train_end: Last second of the training slice.
        validation_end: Last second of the validation slice; later events are the test slice.
        rows: Slice -> events.
    """

    train_end: int
    validation_end: int
    rows: dict[str, int]


def time_range(as_of: date, lookback_days: int | None) -> tuple[int, int]:
    """First second wanted and first second after the as-of day, UTC."""
    start = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    end = int((start + timedelta(days=1)).timestamp())
    return (0 if lookback_days is None else end - lookback_days * DAY), end


def find_boundaries(events: DataFrame, split: Split, *, origin: str) -> Boundaries:
    """Boundaries of ``events`` at the declared shares.

    Days are counted first and then the seconds of the one or two days that hold a boundary, so the
    driver sees a row per day and never a sort of all events.

    Raises:
        DataError: There is no event, or a slice with a share got none.
    """
    by_day = _histogram(events, F.expr(f"timestamp div {DAY}"))
    total = sum(by_day.values())
    if total == 0:
        raise DataError(f"{origin}: no event lies in the wanted time range")
    shares = (split.train, split.train + split.validation)
    targets = [math.ceil(round(share * total, 6)) for share in shares]
    days = [reached(by_day.items(), target) for target in targets]
    wanted = F.expr(f"timestamp div {DAY}").isin(sorted({day for day, _ in days}))
    by_second = _histogram(events.where(wanted), F.col("timestamp"))
    ends, counts = [], []
    for target, (day, before) in zip(targets, days, strict=True):
        seconds = {s: n for s, n in by_second.items() if s // DAY == day}
        end, until = reached(seconds.items(), target - before)
        ends.append(end)
        counts.append(before + until + seconds[end])
    train, validation = counts[0], counts[1] - counts[0]
    rows = {"train": train, "validation": validation, "test": total - counts[1]}
    _refuse_empty(rows, split, origin)
    return Boundaries(ends[0], ends[1], rows)


def reached(counts: Iterable[tuple[int, int]], target: int) -> tuple[int, int]:
    """The first value at which the running count reaches ``target``, and the count before it.

    Args:
        counts: (value, how often), any order, at least one.
        target: Wanted running count.
    """
    before, last = 0, 0
    for value, count in sorted(counts):
        if before + count >= target:
            return value, before
        before, last = before + count, value
    raise ValueError(f"{target} events are wanted and {before} exist up to {last}")


def slice_name(boundaries: Boundaries) -> Column:
    """``train``, ``validation`` or ``test`` by the event's timestamp."""
    time = F.col("timestamp")
    return (
        F.when(time <= boundaries.train_end, F.lit("train"))
        .when(time <= boundaries.validation_end, F.lit("validation"))
        .otherwise(F.lit("test"))
    )


def _histogram(events: DataFrame, value: Column) -> dict[int, int]:
    rows = events.groupBy(value.alias("value")).count().collect()
    return {row["value"]: row["count"] for row in rows}


def _refuse_empty(rows: dict[str, int], split: Split, origin: str) -> None:
    test = 1 - split.train - split.validation
    shares = {"train": split.train, "validation": split.validation, "test": test}
    for name, share in shares.items():
        if share > 1e-9 and rows[name] == 0:
            raise DataError(
                f"{origin}: the {name} slice is empty ({rows}): too many events share one second, "
                "or there are too few of them; change data.split"
            )
