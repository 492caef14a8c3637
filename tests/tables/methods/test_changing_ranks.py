"""Two processes with tables of integers and ``cafe``: equal copies, equal decisions, resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from muxrec.tables.build import has_torchrec
from muxrec.tables.convert import read_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed"),
]
WORKER = Path(__file__).with_name("changing_worker.py")
STEPS, HALF = 30, 17


def run_ranks(folder: Path, name: str, *, world: int, **job: Any) -> Path:
    """Run the worker on ``world`` ranks; returns the folder that they wrote."""
    out = folder / name
    out.mkdir()
    given = {"start": 0, "stop": STEPS, "source": "", **job}
    shared = {"world": world, "store": str(folder / f"{name}.store"), "out": str(out), **given}
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
    half = run_ranks(folder, "half", world=2, stop=HALF)
    return {
        "one": run_ranks(folder, "one", world=1),
        "two": run_ranks(folder, "two", world=2),
        "half": half,
        "resumed": run_ranks(folder, "resumed", world=2, start=HALF, source=str(half)),
        "opened": run_ranks(folder, "opened", world=1, start=HALF, stop=HALF, source=str(half)),
    }


def rank_of(folder: Path, rank: int) -> dict[str, Any]:
    return torch.load(folder / f"rank.{rank}.pt")


def test_all_processes_hold_the_same_integers_and_the_same_owners(trained) -> None:
    first, second = rank_of(trained["two"], 0), rank_of(trained["two"], 1)
    assert set(first["held"]) == {"int8.int8", "alpt.alpt"}
    for name, rows in first["held"].items():
        for part in ("weight", "momentum", "scale", "updates"):
            assert torch.equal(rows[part], second["held"][name][part]), (name, part)
        assert rows["updates"].tolist() == [STEPS]
    assert first["maps"].keys() == second["maps"].keys()
    for name, value in first["maps"].items():
        assert torch.equal(value, second["maps"][name]), name


def test_two_processes_train_what_one_trains(trained) -> None:
    one, two = read_state(trained["one"]), read_state(trained["two"])
    for name, rows in one.tables.items():
        found = two.tables[name]
        if rows.scale is None:
            torch.testing.assert_close(rows.weight, found.weight, rtol=0, atol=1e-5)
            continue
        # Sums of halves differ by a last bit, which can change a rounding at random by one code.
        differ = (rows.weight.int() - found.weight.int()).abs()
        assert int(differ.max()) <= 1
        assert float(differ.float().mean()) < 0.01
        torch.testing.assert_close(rows.scale, found.scale, rtol=1e-4, atol=0)
    for part in ("keys", "places"):
        wanted = [v for k, v in rank_of(trained["one"], 0)["maps"].items() if k.endswith(part)]
        found = [v for k, v in rank_of(trained["two"], 0)["maps"].items() if k.endswith(part)]
        assert len(wanted) == 1
        assert torch.equal(wanted[0], found[0])
    places = [v for k, v in rank_of(trained["two"], 0)["maps"].items() if k.endswith("places")]
    assert int((places[0] >= 0).sum()) == 7


def test_integers_that_all_hold_are_written_once(trained) -> None:
    files = sorted(path.name for path in trained["two"].glob("*.safetensors"))
    assert files == [
        "alpt%2Ealpt.0-40.safetensors",
        "cafe%2Ecafe%2Ecold.0-4.safetensors",
        "cafe%2Ecafe%2Ecold.4-7.safetensors",
        "cafe%2Ecafe%2Ehot.0-4.safetensors",
        "cafe%2Ecafe%2Ehot.4-7.safetensors",
        "int8%2Eint8.0-40.safetensors",
    ]


@pytest.mark.parametrize(("before", "after"), [("two", "resumed"), ("half", "opened")])
def test_a_resumed_training_goes_on_bit_for_bit(trained, before: str, after: str) -> None:
    wanted, found = read_state(trained[before]), read_state(trained[after])
    for name, rows in wanted.tables.items():
        for part in ("weight", "momentum", "scale", "updates"):
            mine, theirs = getattr(rows, part), getattr(found.tables[name], part)
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), (name, part)
    maps = rank_of(trained[before], 0)["maps"]
    for name, value in rank_of(trained[after], 0)["maps"].items():
        assert torch.equal(value, maps[name]), name
