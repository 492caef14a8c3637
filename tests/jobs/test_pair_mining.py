"""Pairs known by construction, and three engines that must agree to the last bit."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from muxrec.data.snapshot import PAIR_SCHEMA
from muxrec.recipe.model import Pairs
from muxrec_jobs import pair_kernel
from muxrec_jobs.local_pairs import mine_pairs
from muxrec_jobs.pair_kernel import partial_pairs
from muxrec_jobs.pairs import kernel_window, pair_sums, popularity_share, top_pairs

DAY = 86_400
SORTED = [
    ("split", "ascending"),
    ("item_a", "ascending"),
    ("score", "descending"),
    ("item_b", "ascending"),
]
SETTINGS = [
    Pairs(window_events=3, window_days=2.0),
    Pairs(window_events=1, window_days=30.0, scale="none", user_discount="none"),
    Pairs(window_events=10, window_days=0.5, user_discount="inverse", min_count=2, top_n=3),
    Pairs(window_events=50, window_days=100.0, max_user_events=6, min_weight=2.0),
]


def random_log(seed: int, *, users: int = 30, items: int = 25, rows: int = 600) -> dict:
    """Repeats, equal times, both signs of keys and users with one event."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.choice(rng.integers(-(2**63), 2**63 - 1, users), rows),
        "time": rng.integers(1, 40, rows) * (DAY // 4),
        "item": rng.choice(rng.integers(-(2**63), 2**63 - 1, items), rows),
        "weight": rng.integers(1, 6, rows).astype(np.float64),
    }


def brute_force(log: dict, settings: Pairs) -> dict:
    """(item_a, item_b) -> (count, weight, score), by loops over the definition."""
    by_user = defaultdict(list)
    for user, time, item, weight in zip(*(log[n].tolist() for n in log), strict=True):
        if weight >= settings.min_weight:
            by_user[user].append((time, item))
    counts, sums, own = defaultdict(int), defaultdict(float), defaultdict(float)
    for events in by_user.values():
        used = sorted(events)[-settings.max_user_events :]
        n = len(used)
        discount = {"inverse_log": 1 / math.log2(1 + n), "inverse": 1 / n, "none": 1.0}
        weight = round(discount[settings.user_discount] * 2**30) / 2**30
        met = set()
        for i, (t, a) in enumerate(used):
            for u, b in used[i + 1 : i + 1 + settings.window_events]:
                if a != b and u - t <= settings.window_days * DAY:
                    met |= {(a, b), (b, a)}
        for pair in met:
            counts[pair] += 1
            sums[pair] += weight
        for item in {item for _, item in used}:
            own[item] += weight
    return {
        (a, b): (counts[a, b], sums[a, b], sums[a, b] / math.sqrt(own[a] * own[b]))
        for a, b in counts
        if counts[a, b] >= settings.min_count
    }


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_the_local_engine_equals_loops_over_the_definition(settings: Pairs, seed: int) -> None:
    log = random_log(seed)
    found = mine_pairs(log["user"], log["time"], log["item"], settings, weight=log["weight"])
    expected = brute_force(log, settings)
    if settings.top_n >= 50:
        assert found.num_rows == len(expected)
    assert found.num_rows
    for row in found.to_pylist():
        count, weight, cosine = expected[row["item_a"], row["item_b"]]
        assert row["count"] == count
        assert row["weight"] == weight
        # Loops divide sums of fractions, engines whole numbers: equal up to rounding.
        wanted = cosine if settings.scale == "cosine" else weight
        assert row["score"] == pytest.approx(wanted, rel=1e-12)


def test_two_items_that_every_user_sees_together_score_one() -> None:
    user, item = np.repeat(np.arange(4), 2), np.tile([10, 20], 4)
    found = mine_pairs(user, user * 0 + 5, item, Pairs(scale="cosine")).to_pylist()
    assert [(r["item_a"], r["item_b"], r["count"], r["score"]) for r in found] == [
        (10, 20, 4, 1.0),
        (20, 10, 4, 1.0),
    ]
    # Each of the four users has two events: 4 / log2(3), in multiples of 2**-30.
    assert found[0]["weight"] == pytest.approx(4 / math.log2(3), abs=4 * 2**-31)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {(1, 2), (1, 3), (2, 3)}),
        ({"window_events": 1}, {(1, 2), (2, 3)}),
        ({"window_days": 1.0}, {(1, 2), (2, 3)}),
        ({"window_days": 0.5}, {(2, 3)}),
        ({"max_user_events": 2}, {(2, 3)}),
        ({"max_user_events": 1}, set()),
        ({"min_count": 2}, set()),
        ({"min_weight": 2.0}, {(2, 3)}),
    ],
)
def test_the_window_decides_which_events_pair_up(change: dict, expected: set) -> None:
    settings = replace(Pairs(window_events=9, window_days=9.0), **change)
    time, item, weight = [0, DAY, DAY + DAY // 2], [1, 2, 3], [1.0, 2.0, 3.0]
    found = mine_pairs([7, 7, 7], time, item, settings, weight=weight)
    pairs = set(zip(found["item_a"].to_pylist(), found["item_b"].to_pylist(), strict=True))
    assert {(a, b) for a, b in pairs if a < b} == expected
    assert pairs == {(b, a) for a, b in pairs}


def test_ties_of_time_are_ordered_by_item_and_ties_of_score_go_to_the_smaller_item() -> None:
    settings = Pairs(window_events=1, top_n=1)
    found = mine_pairs([1, 1, 1], [5, 5, 5], [30, 10, 20], settings).to_pylist()
    assert {(r["item_a"], r["item_b"]) for r in found} == {(10, 20), (20, 10), (30, 20)}


def test_no_events_give_an_empty_table_of_the_declared_schema() -> None:
    assert mine_pairs([], [], [], Pairs()).schema == PAIR_SCHEMA
    assert list(partial_pairs(iter([]), kernel_window(Pairs()))) == []
    empty = pa.RecordBatch.from_pydict(
        {n: pa.array([], pa.int64()) for n in ("user_key", "timestamp", "item_key")}
        | {"split": pa.array([], pa.string())}
    )
    assert list(partial_pairs(iter([empty]), kernel_window(Pairs()))) == []


@pytest.mark.parametrize("chunk", [1, 64, 2**23])
def test_sums_do_not_depend_on_the_size_of_a_chunk(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS[0]
    log = random_log(9)
    monkeypatch.setattr(pair_kernel, "CHUNK_PAIRS", chunk)
    splits = np.where(np.arange(600) % 3 == 0, "train", "test")
    names = {"split": pa.array(splits), "user_key": log["user"], "timestamp": log["time"]}
    table = pa.table(names | {"item_key": log["item"]})
    batches = partial_pairs(iter(table.to_batches(max_chunksize=37)), kernel_window(settings))
    sums = pa.Table.from_batches(batches).group_by(["split", "low", "high"])
    found = sums.aggregate([("fixed_weight", "sum"), ("count", "sum")])
    own = found.filter(pc.equal(found["low"], found["high"]))
    assert own.num_rows == len({*zip(splits, log["item"], strict=True)})
    for split in ("train", "test"):
        part = splits == split
        expected = mine_pairs(
            log["user"][part], log["time"][part], log["item"][part], replace(settings, top_n=10**6)
        )
        here = found.filter(pc.field("split") == split).to_pylist()
        made = {(r["low"], r["high"]): r for r in here if r["low"] != r["high"]}
        wanted = [row for row in expected.to_pylist() if row["item_a"] < row["item_b"]]
        assert len(made) == len(wanted)
        for row in wanted:
            pair = made[row["item_a"], row["item_b"]]
            assert pair["count_sum"] == row["count"]
            assert pair["fixed_weight_sum"] / 2**30 == row["weight"]


def spark_pairs(spark: SparkSession, table: pa.Table, settings: Pairs, *, buckets: int) -> pa.Table:
    sums = pair_sums(spark.createDataFrame(table), settings, buckets=buckets).persist()
    found = top_pairs(sums, settings).toArrow().sort_by(SORTED)
    sums.unpersist()
    return found


@pytest.mark.spark
@pytest.mark.parametrize(("seed", "buckets"), [(0, 1), (1, 3), (2, 64), (3, 2)])
def test_spark_equals_the_local_engine_bit_for_bit(
    spark: SparkSession, seed: int, buckets: int
) -> None:
    settings, log = SETTINGS[seed], random_log(100 + seed)
    splits = np.where(np.arange(600) % 4 == 0, "test", "train")
    names = {"split": pa.array(splits), "user_key": log["user"], "timestamp": log["time"]}
    table = pa.table(names | {"item_key": log["item"], "weight": log["weight"]})
    found = spark_pairs(spark, table, settings, buckets=buckets)
    for split in ("test", "train"):
        part = splits == split
        columns = [log[name][part] for name in ("user", "time", "item")]
        expected = mine_pairs(*columns, settings, weight=log["weight"][part])
        mine = found.filter(pc.field("split") == split).select(PAIR_SCHEMA.names)
        assert mine.cast(PAIR_SCHEMA).equals(expected)
        assert expected.num_rows


@pytest.mark.spark
def test_no_events_give_no_pairs_in_spark(spark: SparkSession) -> None:
    schema = "split string, user_key bigint, timestamp bigint, item_key bigint, weight double"
    sums = pair_sums(spark.createDataFrame([], schema), Pairs(), buckets=2)
    assert top_pairs(sums, Pairs()).count() == 0


@pytest.mark.spark
def test_popularity_share_counts_items_whose_best_partner_is_popular(spark: SparkSession) -> None:
    rows = [("train", 1)] * 5 + [("train", 2)] * 4 + [("train", 3), ("test", 3)]
    events = spark.createDataFrame(rows, "split string, item_key bigint")
    best = [("train", 2, 1, 0.9), ("train", 2, 3, 0.1), ("train", 3, 2, 0.5), ("train", 1, 3, 0.4)]
    pairs = spark.createDataFrame(best, "split string, item_a bigint, item_b bigint, score double")
    assert popularity_share(pairs, events, popular=1) == pytest.approx(1 / 3)
    assert popularity_share(pairs, events, popular=2) == pytest.approx(2 / 3)
    assert popularity_share(pairs.limit(0), events) is None
