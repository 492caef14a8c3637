"""No engine ever makes a gradient of the table's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables.bags import Bags
from muxrec.tables.build import build_tables, has_torchrec

WORKER = Path(__file__).with_name("memory_worker.py")
TABLE_BYTES = 2_000_000 * 64 * 4
ENGINES = ["reference", *(["torchrec"] if has_torchrec() else [])]


def train_in_another_process(way: str) -> dict:
    command = [sys.executable, str(WORKER), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_memory_does_not_rise_by_a_table_while_training(engine: str) -> None:
    found = train_in_another_process(engine)
    assert found["rise"] < TABLE_BYTES / 8, found
    assert "dense" not in found["gradients"]


@pytest.mark.slow
def test_the_measurement_sees_a_dense_gradient() -> None:
    found = train_in_another_process("dense")
    assert found["gradients"] == ["dense"]
    assert found["rise"] > TABLE_BYTES / 2, found


@pytest.mark.parametrize("engine", ENGINES)
def test_no_operation_of_a_step_allocates_a_tables_worth(engine: str) -> None:
    rows, width, batch = 200_000, 16, 32
    features = tuple(FeatureSpec(f"f{i}", "id", ("x",), "id", table="t") for i in range(5))
    table = TableSpec("t", "unified", width, rows=rows)
    tables = build_tables(features, (table,), vocabularies={}, engine=engine)  # type: ignore[arg-type]
    optimizer = tables.table_optimizer()
    bags = {f.name: Bags(torch.arange(batch), torch.arange(batch + 1)) for f in features}

    def step() -> None:
        sum(vector.sum() for vector in tables(bags).values()).backward()
        optimizer.step()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    largest = max(event.self_cpu_memory_usage for event in profiler.events())
    assert 0 < largest < rows * width * 4 / 8
