from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from muxrec_serving.bench import serve_bench
from muxrec_serving.bench.processes import cpu_s


@pytest.mark.slow
def test_the_benchmark_measures_every_target_and_writes_its_numbers(tmp_path: Path):
    out = tmp_path / "numbers.json"
    arguments = ["--items", "300", "--dim", "16", "--requests", "200", "--rounds", "1"]
    done = CliRunner().invoke(serve_bench, [*arguments, "--connections", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["bare_search_us"] > 0
    assert len(report["rows"]) == 5
    assert all(row["cpu_us"] > 0 and row["p99_ms"] >= row["p50_ms"] for row in report["rows"])
    assert done.output.count("| 2 |") == 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the clock counts ticks")
def test_the_clock_of_a_process_sees_less_than_a_tick():
    """A tick is 10 ms, more than a few hundred precomputed answers cost."""
    this = psutil.Process()
    ticks = this.cpu_times()
    assert abs(cpu_s(this) - (ticks.user + ticks.system)) < 0.1
    before, own = cpu_s(this), time.process_time()
    sum(range(20_000))
    used = time.process_time() - own
    assert 0 < used <= cpu_s(this) - before < used + 0.1
