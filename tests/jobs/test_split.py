"""The global time split."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from pyspark.sql import SparkSession

from muxrec.errors import DataError
from muxrec.recipe.model import Split
from muxrec_jobs.split import DAY, find_boundaries, reached, slice_name, time_range


def test_the_boundary_is_the_first_value_that_reaches_the_target() -> None:
    counts = [(30, 5), (10, 2), (20, 3)]
    assert [reached(counts, n) for n in (1, 2, 3, 5, 6, 10)] == [
        (10, 0),
        (10, 0),
        (20, 2),
        (20, 2),
        (30, 5),
        (30, 5),
    ]
    with pytest.raises(ValueError, match="11 events are wanted and 10 exist"):
        reached(counts, 11)


def test_the_time_range_ends_with_the_as_of_day() -> None:
    assert time_range(date(1970, 1, 3), None) == (0, 3 * DAY)
    assert time_range(date(1970, 1, 3), 1) == (2 * DAY, 3 * DAY)


@pytest.mark.spark
def test_boundaries_are_the_exact_quantiles_and_ties_stay_on_one_side(spark: SparkSession) -> None:
    rng = np.random.default_rng(3)
    times = rng.integers(1, 3 * DAY, 500) // 600 * 600 + 1
    events = spark.createDataFrame([(int(t),) for t in times], "timestamp bigint")
    found = find_boundaries(events, Split(0.7, 0.2), origin="log")
    ordered = np.sort(times)
    assert found.train_end == ordered[349]
    assert found.validation_end == ordered[449]
    named = events.select("timestamp", slice_name(found).alias("split")).collect()
    rows = {n: sum(r.split == n for r in named) for n in ("train", "validation", "test")}
    assert rows == found.rows
    assert rows["train"] == (times <= ordered[349]).sum()
    sides = {}
    for row in named:
        sides.setdefault(row.timestamp, set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.spark
def test_a_slice_that_ties_leave_empty_is_refused(spark: SparkSession) -> None:
    events = spark.createDataFrame([(7,)] * 10, "timestamp bigint")
    with pytest.raises(DataError, match="the validation slice is empty"):
        find_boundaries(events, Split(0.8, 0.1), origin="log")
    whole = find_boundaries(events, Split(1.0, 0.0), origin="log")
    assert whole.rows == {"train": 10, "validation": 0, "test": 0}


@pytest.mark.spark
def test_no_event_in_range_is_refused(spark: SparkSession) -> None:
    with pytest.raises(DataError, match="no event lies in the wanted time range"):
        find_boundaries(spark.createDataFrame([], "timestamp bigint"), Split(), origin="log")
