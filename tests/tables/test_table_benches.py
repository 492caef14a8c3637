"""The benchmarks measure what they say, and print nothing when engines disagree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from muxrec.bench import hash_quality, hash_speed
from muxrec.bench.hash import measure_avalanche, measure_uniformity
from muxrec.bench.report import Table, write_report
from muxrec.errors import MuxrecError
from muxrec.tables.build import has_torchrec


def test_the_hash_is_uniform_and_collides_as_chance_does() -> None:
    table = measure_uniformity(50_000)
    assert len(table.rows) == 15
    for _, rows, z, occupied, pairs, expected in table.rows:
        assert abs(z) < 5, (rows, z)
        assert occupied == pytest.approx(1, abs=0.01)
        # A Poisson mean over six pairs of probes: far above five deviations.
        assert pairs <= expected + 5 * (expected / 6) ** 0.5 + 1


def test_the_quality_measures_see_a_bad_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_quality, "hash_ids", lambda ids, seed: ids + seed)
    worst, chance = hash_quality.avalanche_bias(200)
    assert worst == pytest.approx(0.5)
    assert chance < 0.2
    monkeypatch.setattr(
        hash_quality, "hash_rows", lambda ids, *, name, probe, rows: (ids + probe) % rows
    )
    ids = hash_quality.id_sets(10_000)["stride 1024"]
    bad = hash_quality.uniformity("stride 1024", ids, 2**17)
    assert abs(bad.worst_z) > 100
    assert bad.occupied < 0.1
    assert bad.pair_collisions > 100 * bad.expected_collisions


def test_the_avalanche_is_within_chance() -> None:
    (_, worst), (_, chance) = measure_avalanche().rows
    assert worst < 1.5 * chance


def test_engines_that_disagree_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(100)
    # Without the exported graph, whose own test takes its ten seconds elsewhere.
    monkeypatch.setattr(hash_speed, "has_onnx", lambda: False)
    good = hash_speed.engines()
    hash_speed.check_equal(good, ids)
    wrong = {**good, "broken": lambda given: good["torch"](given) + (given == 7)}
    with pytest.raises(MuxrecError, match="broken puts id 7 in row"):
        hash_speed.check_equal(wrong, ids)


def test_a_report_is_markdown_and_json(tmp_path: Path) -> None:
    table = Table("T", "A note.", ("name", "ms"), (("a", 0.001234), ("b", 12_345.6)))
    markdown, machine = write_report(tmp_path / "docs", "bench-t", [table])
    assert "| a | 0.00123 |" in markdown.read_text()
    assert "| b | 12,346 |" in markdown.read_text()
    assert json.loads(machine.read_text())[0]["rows"] == [["a", 0.001234], ["b", 12_345.6]]


@pytest.mark.slow
@pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed")
def test_the_train_step_bench_runs_and_refuses_engines_that_differ(tmp_path: Path) -> None:
    from muxrec.bench import train_step

    sizes = {"features": 3, "rows": 2000, "width": 8, "batch": 16, "rounds": 1}
    arguments = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    done = CliRunner().invoke(train_step.train_step_bench, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (table,) = json.loads((tmp_path / "bench-train-step.json").read_text())
    assert [row[0] for row in table["rows"]] == [
        *(train_step.PLAIN, train_step.TBE, train_step.TBE_SPLIT),
        *(train_step.OURS, train_step.REFERENCE),
    ]
    assert all(number > 0 for row in table["rows"] for number in row[1:])
    with pytest.raises(MuxrecError, match="a: the two engines give different vectors"):
        train_step._check_equal({"a": torch.zeros(2)}, {"a": torch.ones(2)})
