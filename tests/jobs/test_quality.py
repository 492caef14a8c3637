"""Every reason for which a row is refused."""

from __future__ import annotations

import json

import pytest
from pyspark.sql import SparkSession

from muxrec.errors import DataError
from muxrec_jobs.quality import (
    DUPLICATE_EVENT,
    EVENT_CHECKS,
    Counts,
    check_events,
    check_items,
    count_events,
    enforce,
    rejected_rows,
)
from muxrec_jobs.schemas import RAW_EVENT

NOW = 1_600_000_000
GOOD = ("u1", "1", "1500000000", "view", "1", "{}", False)


def changed(**values) -> tuple:
    return tuple(values.get(name, old) for name, old in zip(RAW_EVENT.names, GOOD, strict=True))


CASES = [
    ("malformed_row", changed(is_malformed=True, row='{"line":"u1,1"}')),
    ("missing_user_id", changed(user_id=None)),
    ("missing_user_id", changed(user_id="  ")),
    ("missing_item_id", changed(item_id=None)),
    ("missing_item_id", changed(item_id="")),
    ("unreadable_timestamp", changed(timestamp="yesterday")),
    ("unreadable_timestamp", changed(timestamp=None)),
    ("unreadable_timestamp", changed(timestamp="NaN")),
    ("non_positive_timestamp", changed(timestamp="0")),
    ("non_positive_timestamp", changed(timestamp="-5")),
    ("future_timestamp", changed(timestamp=str(NOW + 1))),
    ("future_timestamp", changed(timestamp="1500000000000")),
    ("invalid_weight", changed(weight="NaN")),
    ("invalid_weight", changed(weight="-Infinity")),
    ("invalid_weight", changed(weight="five")),
    ("invalid_weight", changed(weight=None)),
    ("item_not_in_catalogue", changed(item_id="99")),
]


@pytest.mark.spark
def test_each_broken_row_is_refused_for_its_own_reason(spark: SparkSession) -> None:
    rows = [
        changed(row=json.dumps({"n": n}) if row[5] == "{}" else row[5], **_named(row))
        for n, (_, row) in enumerate(CASES)
    ]
    raw = spark.createDataFrame([*rows, GOOD], RAW_EVENT)
    ids = spark.createDataFrame([("1",), ("2",)], "item_id string")
    checked = check_events(raw, ids, now=NOW).persist()
    found = {(row["row"], row["reason"]) for row in checked.collect() if row["reason"]}
    expected = {(row[5], reason) for (reason, _), row in zip(CASES, rows, strict=True)}
    assert found == expected
    assert {reason for reason, _ in CASES} == set(EVENT_CHECKS)
    counts = count_events(checked)
    assert (counts.read, counts.kept, counts.last) == (len(CASES) + 1, 1, 1_500_000_000)
    assert sum(counts.rejected.values()) == len(CASES)
    kept = rejected_rows(checked, source="interactions")
    assert kept.count() == len(CASES)
    checked.unpersist()


def _named(row: tuple) -> dict:
    return {n: v for n, v in zip(RAW_EVENT.names, row, strict=True) if n != "row"}


@pytest.mark.spark
def test_an_event_seen_twice_is_kept_once_and_the_heavier_one_stays(spark: SparkSession) -> None:
    rows = [
        GOOD,
        changed(weight="3"),
        GOOD,
        changed(timestamp="1500000001"),
        changed(event_type="buy"),
    ]
    checked = check_events(spark.createDataFrame(rows, RAW_EVENT), None, now=NOW).collect()
    kept = sorted((r.timestamp, r.event_type, r.weight) for r in checked if r.reason is None)
    assert kept == [(1500000000, "buy", 1.0), (1500000000, "view", 3.0), (1500000001, "view", 1.0)]
    again = [r for r in checked if r.reason == DUPLICATE_EVENT]
    assert len(again) == 2
    assert json.loads(again[0].row)["user_id"] == "u1"


@pytest.mark.spark
def test_times_are_read_as_seconds_decimals_and_dates(spark: SparkSession) -> None:
    texts = ["1500000000", "1500000000.7", "1.5e9", "2017-07-14 02:40:00", "2017-07-14T02:40:00Z"]
    rows = [changed(user_id=str(n), timestamp=text) for n, text in enumerate(texts)]
    checked = check_events(spark.createDataFrame(rows, RAW_EVENT), None, now=NOW)
    assert {row.timestamp for row in checked.collect()} == {1_500_000_000}


@pytest.mark.spark
def test_catalogue_rows_without_an_id_torn_or_repeated_are_refused(spark: SparkSession) -> None:
    rows = [
        ("1", "a", None),
        ("1", "b", None),
        (None, "c", None),
        (" ", "d", None),
        ("2", "e", "2,"),
    ]
    table = spark.createDataFrame(rows, "item_id string, title string, _malformed string")
    checked = check_items(table).collect()
    reasons = sorted((row.title, row.reason) for row in checked if row.reason)
    assert reasons == [
        ("b", "duplicate_item"),
        ("c", "missing_item_id"),
        ("d", "missing_item_id"),
        ("e", "malformed_row"),
    ]
    assert next(row.row for row in checked if row.title == "e") == '{"line":"2,"}'


def test_too_many_refused_rows_stop_the_build_and_name_the_counts() -> None:
    counts = Counts(100, {"future_timestamp": 8, "invalid_weight": 3}, 5)
    enforce(counts, max_rejected=0.11, origin="log.csv")
    with pytest.raises(
        DataError, match=r"log\.csv: 11 of 100 .*future_timestamp 8, invalid_weight 3"
    ):
        enforce(counts, max_rejected=0.1, origin="log.csv")


def test_empty_input_stops_the_build() -> None:
    with pytest.raises(DataError, match=r"log\.csv: the interactions are empty"):
        enforce(Counts(0, {}, None), max_rejected=1.0, origin="log.csv")


def test_input_of_refused_rows_only_stops_the_build_at_any_share() -> None:
    with pytest.raises(DataError, match="4 of 4"):
        enforce(Counts(4, {"missing_user_id": 4}, None), max_rejected=1.0, origin="log.csv")
