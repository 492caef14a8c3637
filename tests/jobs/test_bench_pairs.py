"""The comparison of pair engines refuses to print numbers for different rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from muxrec.errors import DataError, MuxrecError
from muxrec_jobs import bench, bench_engines
from muxrec_jobs.bench import pairs_bench, read_log, refuse_differences
from muxrec_jobs.bench_engines import ENGINES, ORDER, PAIR_SCHEMA


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    rows = {"userID": [], "movieID": []}
    for user in range(40):
        seen = rng.permutation(30)[: rng.integers(2, 25)]
        rows["userID"] += [str(user)] * len(seen)
        rows["movieID"] += [str(item) for item in seen]
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_the_row_number_of_a_user_stands_for_the_time(tmp_path: Path) -> None:
    table = pa.table({"userID": ["7", "3", "7", "3", "7"], "movieID": list("54321")})
    pq.write_table(table, tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet", events=4)
    assert log["user_key"].to_pylist() == [7, 3, 7, 3]
    assert log["timestamp"].to_pylist() == [0, 0, 1, 1]
    assert log["item_key"].to_pylist() == [5, 4, 3, 2]
    with pytest.raises(DataError, match="expected parquet with userID and movieID"):
        read_log(tmp_path / "gone.parquet", events=4)


@pytest.mark.spark
def test_all_engines_give_equal_rows(spark: SparkSession, log: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.parquet"
    pq.write_table(read_log(log, events=10**6), events)
    found = {}
    for name, engine in ENGINES.items():
        with engine() as mine:
            pairs = mine(events).select(PAIR_SCHEMA.names).cast(PAIR_SCHEMA)
            found[name] = pairs.sort_by(ORDER)
    oracle = found.pop(bench.ORACLE)
    assert oracle.num_rows > 100
    assert min(oracle["count"].to_pylist()) == bench_engines.SETTINGS.min_count
    for name, pairs in found.items():
        assert pairs.equals(oracle), name


def test_an_engine_with_other_rows_stops_the_comparison(tmp_path: Path) -> None:
    row = {"item_a": [1], "item_b": [2], "count": [3], "weight": [0.5], "score": [0.5]}
    for number in range(len(ENGINES)):
        pq.write_table(pa.table(row, schema=PAIR_SCHEMA), tmp_path / f"{number}.parquet")
    assert refuse_differences(tmp_path) == 1
    other = row | {"score": [np.nextafter(0.5, 1)]}
    pq.write_table(pa.table(other, schema=PAIR_SCHEMA), tmp_path / "0.parquet")
    with pytest.raises(MuxrecError, match="muxrec Spark job gives other pairs"):
        refuse_differences(tmp_path)


def test_the_command_writes_json_and_markdown(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = {name: ENGINES[name] for name in list(ENGINES)[2:]}
    monkeypatch.setattr(bench, "ENGINES", local)
    out = tmp_path / "out"

    def run_here(engine: str, events: Path, folder: Path) -> dict:
        result = folder / f"{list(local).index(engine)}.parquet"
        return bench_engines.measure(engine, events, result)

    monkeypatch.setattr(bench, "run_engine", run_here)
    done = CliRunner().invoke(pairs_bench, ["--data", str(log), "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads((out / "bench-pairs.json").read_text())
    assert [run["engine"] for run in result["engines"]] == list(local)
    assert result["pairs"] > 100
    assert "The log has no times" in (out / "bench-pairs.md").read_text()
