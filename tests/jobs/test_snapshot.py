"""The snapshot reader on folders made by hand: what it reads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muxrec.data.snapshot import (
    EVENT_SCHEMA,
    FORMAT_VERSION,
    KIND,
    PAIR_SCHEMA,
    Snapshot,
    point_to,
)
from muxrec.errors import DataError, HashMismatchError
from muxrec.manifest import MANIFEST, seal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "dt=2020-01-02" / "run=abc"
    items = pa.table({"item_id": ["1", "2"], "item_key": [1, 2], "title": ["a", "b"]})
    times = [("train", 5, 1), ("test", 9, 2), ("train", 3, 2)]
    events = [
        {"user_id": "u", "user_key": 7, "item_key": k, "timestamp": t, "event_type": "e"}
        | {"weight": 1.0, "split": s}
        for s, t, k in times
    ]
    pairs = {"item_a": [1, 2], "item_b": [2, 1], "count": [1, 1], "weight": [0.5] * 2}
    tables = {
        "items/part-00000.parquet": items,
        "events/dt=1970/part-00000.parquet": pa.Table.from_pylist(events, EVENT_SCHEMA),
        "pairs/split=train/part-00000.parquet": pa.table(
            pairs | {"score": [1.0] * 2}, schema=PAIR_SCHEMA
        ),
    }
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True)
        pq.write_table(table, folder / name, write_page_checksum=True, compression="none")
    seal(folder, kind=KIND, format_version=FORMAT_VERSION, body={"digest": "d" * 64})
    point_to(folder)
    return folder


def test_a_root_a_day_and_a_run_open_the_same_snapshot(run: Path) -> None:
    assert {Snapshot.open(p).folder for p in (run, run.parent, run.parent.parent)} == {run}
    assert (run.parent.parent / "CURRENT").read_text() == "dt=2020-01-02/run=abc"
    assert Snapshot.open(str(run)).digest == "d" * 64


def test_events_come_by_time_and_by_slice(run: Path) -> None:
    snapshot = Snapshot.open(run)
    assert snapshot.events()["timestamp"].to_pylist() == [3, 5, 9]
    assert snapshot.events("train", columns=["item_key"]).to_pydict() == {"item_key": [2, 1]}
    assert snapshot.events("validation").num_rows == 0
    with pytest.raises(DataError, match="split must be one of train, validation, test, got dev"):
        snapshot.events("dev")
    with pytest.raises(DataError, match="unknown column rating"):
        snapshot.events(columns=["rating"])


def test_a_slice_without_pairs_is_an_empty_table(run: Path) -> None:
    snapshot = Snapshot.open(run)
    assert snapshot.pairs("train").num_rows == 2
    assert snapshot.pairs("test").schema == PAIR_SCHEMA
    assert snapshot.pair_files("test") == []
    assert snapshot.rejected().column_names == ["source", "row", "reason"]


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_refused_by_name(run: Path, verify: bool) -> None:
    path = run / "items/part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"items/part-00000\.parquet"):
        Snapshot.open(run, verify=verify).items()


@pytest.mark.parametrize("verify", [True, False])
def test_a_flipped_bit_in_a_value_is_refused_by_name(run: Path, verify: bool) -> None:
    path = run / "pairs/split=train/part-00000.parquet"
    data = bytearray(path.read_bytes())
    at = bytes(data).index(bytes(pa.array([0.5, 0.5]).buffers()[1])[:8])
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"pairs/split=train/part-00000\.parquet"):
        Snapshot.open(run, verify=verify).pairs("train")


def test_a_missing_and_an_unlisted_file_are_refused_by_name(run: Path) -> None:
    stray = run / "items/part-00001.parquet"
    stray.write_bytes((run / "items/part-00000.parquet").read_bytes())
    assert Snapshot.open(run, verify=False).items().num_rows == 2
    with pytest.raises(DataError, match=r"items/part-00001\.parquet is not listed"):
        Snapshot.open(run)
    stray.unlink()
    (run / "events/dt=1970/part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"events/dt=1970/part-00000\.parquet is missing"):
        Snapshot.open(run)


def test_another_hash_spec_and_another_kind_are_refused(run: Path) -> None:
    text = (run / MANIFEST).read_text()
    (run / MANIFEST).write_text(text.replace("xxh64-mulshift-1", "murmur-7"))
    with pytest.raises(HashMismatchError, match="murmur-7"):
        Snapshot.open(run)
    (run / MANIFEST).write_text(text.replace('"kind": "dataset"', '"kind": "bundle"'))
    with pytest.raises(DataError, match="is bundle format 1, expected dataset"):
        Snapshot.open(run)


@pytest.mark.parametrize(
    ("pointer", "message"),
    [
        ("", "is damaged"),
        ("../../etc", "is damaged"),
        ("/etc", "is damaged"),
        ("dt=2020-01-02/run=gone", "which is not a finished snapshot"),
    ],
)
def test_a_broken_pointer_is_refused(run: Path, pointer: str, message: str) -> None:
    root = run.parent.parent
    (root / "CURRENT").write_text(pointer)
    with pytest.raises(DataError, match=message):
        Snapshot.open(root)


def test_an_empty_place_says_how_to_make_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="muxrec data build RECIPE"):
        Snapshot.open(tmp_path)
