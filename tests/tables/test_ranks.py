"""Two processes train what one trains, and their checkpoint opens on one and on three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from muxrec.tables.build import has_torchrec
from muxrec.tables.convert import read_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed"),
]
WORKER = Path(__file__).with_name("rank_worker.py")


def run_ranks(folder: Path, name: str, *, world: int, **job: object) -> Path:
    """Run the worker on ``world`` ranks; returns the folder that they wrote."""
    out = folder / name
    out.mkdir()
    shared = {"world": world, "store": str(folder / f"{name}.store"), "out": str(out), **job}
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps({**shared, "rank": rank})],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    for rank in ranks:
        output, _ = rank.communicate(timeout=240)
        assert rank.returncode == 0, output[-3000:]
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ranks")
    return {
        "reference": run_ranks(folder, "reference", world=1, mode="train", engine="reference"),
        "one": run_ranks(folder, "one", world=1, mode="train", engine="torchrec"),
        "two": run_ranks(folder, "two", world=2, mode="train", engine="torchrec"),
    }


@pytest.mark.parametrize("other", ["reference", "one"])
def test_two_processes_train_what_one_trains(trained: dict[str, Path], other: str) -> None:
    one, two = read_state(trained[other]), read_state(trained["two"])
    assert one.reads == two.reads
    for name, rows in one.tables.items():
        # Two ranks add the two halves of a batch in another order than one rank.
        torch.testing.assert_close(rows.weight, two.tables[name].weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows.momentum, two.tables[name].momentum, rtol=1e-5, atol=1e-9)
    single = json.loads((trained[other] / "losses.0.json").read_text())
    halves = [json.loads((trained["two"] / f"losses.{r}.json").read_text()) for r in (0, 1)]
    means = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
    assert means == pytest.approx(single, rel=1e-6, abs=1e-7)


def test_the_rows_lie_where_the_plan_says(trained: dict[str, Path]) -> None:
    files = sorted(path.name for path in trained["two"].glob("*.safetensors"))
    assert files == [
        "items%2Eitem.0-30.safetensors",
        "own%2Etype.0-19.safetensors",
        "own%2Etype.19-38.safetensors",
        "shared.0-51.safetensors",
        "shared.51-101.safetensors",
        "tiny%2Etable%2Eflag.0-1.safetensors",
    ]


@pytest.mark.parametrize(("world", "engine"), [(1, "torchrec"), (1, "reference"), (3, "torchrec")])
def test_a_checkpoint_of_two_ranks_opens_bit_equal(
    trained: dict[str, Path], tmp_path: Path, world: int, engine: str
) -> None:
    job = {"mode": "open", "engine": engine, "source": str(trained["two"])}
    opened = run_ranks(tmp_path, f"on-{world}-{engine}", world=world, **job)
    before, after = read_state(trained["two"]), read_state(opened)
    for name, rows in before.tables.items():
        assert torch.equal(rows.weight, after.tables[name].weight)
        assert torch.equal(rows.momentum, after.tables[name].momentum)
        assert rows.momentum.gt(0).any()
