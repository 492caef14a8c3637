"""The declared expectations of a finished snapshot, counted file by file in Arrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.data.keys import id_keys
from muxrec.data.snapshot import SPLITS, Snapshot
from muxrec.recipe.model import Data

Failures = dict[str, int]


def check_snapshot(snapshot: Snapshot, data: Data) -> Failures:
    """Expectation -> rows that break it, 0 where it holds.

    One file is in memory at a time, beside the catalogue's keys.

    Args:
        snapshot: An open, verified snapshot.
        data: The recipe's data section that it was built by.
    """
    items = snapshot.items()
    keys = items["item_key"].to_numpy()
    failures = _check_items(items, keys)
    for check, under in ((_check_events, "events"), (_check_pairs, "pairs")):
        for found in _each_file(snapshot, under, check, keys, data):
            for name, rows in found.items():
                failures[name] = failures.get(name, 0) + rows
    failures |= _check_counts(snapshot, items)
    return failures


def _each_file(
    snapshot: Snapshot,
    under: str,
    check: Callable[[pa.Table, np.ndarray, Snapshot, Data], Failures],
    keys: np.ndarray,
    data: Data,
) -> Iterator[Failures]:
    for path in snapshot.files(under):
        yield check(_table(path), keys, snapshot, data)


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=columns)


def _check_items(items: pa.Table, keys: np.ndarray) -> Failures:
    expected = id_keys(items["item_id"].to_pylist())
    return {
        "items: item_key is the key of item_id": int((expected != keys).sum()),
        "items: item_key rises strictly": int((keys[1:] <= keys[:-1]).sum()),
        "items: counts are not negative": int((items["train_events"].to_numpy() < 0).sum()),
    }


def _check_events(table: pa.Table, keys: np.ndarray, snapshot: Snapshot, _data: Data) -> Failures:
    time, weight = table["timestamp"].to_numpy(), table["weight"].to_numpy()
    ends = snapshot.manifest["split"]
    expected = np.searchsorted([ends["train_end"], ends["validation_end"]], time, side="left")
    order = {name: number for number, name in enumerate(SPLITS)}
    found = np.array([order.get(name, -1) for name in table["split"].to_pylist()])
    columns = ["user_id", "item_key", "timestamp", "event_type"]
    distinct = table.group_by(columns).aggregate([]).num_rows
    return {
        "events: no value is missing": sum(table[name].null_count for name in table.column_names),
        "events: time is positive": int((time <= 0).sum()),
        "events: weight is finite": int((~np.isfinite(weight)).sum()),
        "events: the slice follows from the time": int((expected != found).sum()),
        "events: the item is in the catalogue": int((~np.isin(table["item_key"], keys)).sum()),
        "events: no event occurs twice": table.num_rows - distinct,
    }


def _check_pairs(table: pa.Table, keys: np.ndarray, _snapshot: Snapshot, data: Data) -> Failures:
    a, b, score = (table[name].to_numpy() for name in ("item_a", "item_b", "score"))
    count = table["count"].to_numpy()
    per_item = np.unique(a, return_counts=True)[1]
    is_out_of_order = (a[1:] < a[:-1]) | ((a[1:] == a[:-1]) & (score[1:] > score[:-1]))
    return {
        "pairs: two different items": int((a == b).sum()),
        "pairs: both items are in the catalogue": int((~np.isin([a, b], keys).all(axis=0)).sum()),
        "pairs: enough users": int((count < data.pairs.min_count).sum()),
        "pairs: score is positive and finite": int((~(np.isfinite(score) & (score > 0))).sum()),
        "pairs: at most top_n per item": int((per_item > data.pairs.top_n).sum()),
        "pairs: by item, best first": int(is_out_of_order.sum()),
    }


def _check_counts(snapshot: Snapshot, items: pa.Table) -> Failures:
    keys, is_cold = items["item_key"].to_numpy(), items["is_cold"].to_numpy()
    warm = np.unique(snapshot.pairs("train")["item_a"].to_numpy())
    rows = snapshot.manifest["rows"]
    slices: Counter[str] = Counter()
    for path in snapshot.files("events"):
        for entry in _table(path, ["split"])["split"].value_counts().to_pylist():
            slices[entry["values"]] += entry["counts"]
    return {
        "items: cold means absent from training pairs": int((np.isin(keys, warm) == is_cold).sum()),
        "manifest: rows of the catalogue": abs(rows["items"] - items.num_rows),
        "manifest: rows of each slice": sum(
            abs(n - slices[name]) for name, n in snapshot.manifest["slices"].items()
        ),
    }
