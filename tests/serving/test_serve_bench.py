from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from muxrec_serving.bench import serve_bench


@pytest.mark.slow
def test_the_benchmark_measures_every_target_and_writes_its_numbers(tmp_path: Path):
    out = tmp_path / "numbers.json"
    arguments = ["--items", "300", "--dim", "16", "--requests", "200", "--rounds", "1"]
    done = CliRunner().invoke(serve_bench, [*arguments, "--connections", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["bare_search_us"] > 0
    assert len(report["rows"]) == 5
    assert all(row["cpu_us"] >= 0 and row["p99_ms"] >= row["p50_ms"] for row in report["rows"])
    assert done.output.count("| 2 |") == 5
