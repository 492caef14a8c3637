"""N processes train what one trains, and what they save opens on M under any kind of cutting."""

from __future__ import annotations

import json
import os
import select
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
WORLDS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that four processes filled, alone and in groups."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                str(WORKER),
                json.dumps({"rank": rank, "folder": str(folder), "worlds": WORLDS[-1]}),
            ],
            env=environment,
            stdout=(folder / f"{rank}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(WORLDS[-1])
    ]
    codes = wait_for(ranks)
    logs = [(folder / f"{rank}.log").read_text()[-3000:] for rank in range(WORLDS[-1])]
    assert codes == [0] * len(ranks), "\n".join(logs)
    return folder


def wait_for(ranks: list[subprocess.Popen]) -> list[int]:
    """Exit codes of the processes; when one fails the others, which wait for it, are ended."""
    pipes = {os.pidfd_open(rank.pid): rank for rank in ranks}
    while pipes:
        ready, _, _ = select.select(list(pipes), [], [], 240)
        failed = not ready
        for pidfd in ready:
            os.close(pidfd)
            failed |= pipes.pop(pidfd).wait() != 0
        if failed:
            for rank in pipes.values():
                rank.kill()
    return [rank.wait() for rank in ranks]


def losses(folder: Path) -> list[float]:
    """Mean over the ranks of every step's loss."""
    each = [json.loads(path.read_text()) for path in sorted(folder.glob("losses.*.json"))]
    return [sum(step) / len(step) for step in zip(*each, strict=True)]


@pytest.mark.parametrize("other", ["trained-1", "trained-2", "trained-3", "trained-4"])
def test_every_kind_trains_what_one_process_of_plain_torch_trains(done: Path, other: str) -> None:
    one, many = read_state(done / "reference"), read_state(done / other)
    assert one.reads == many.reads
    for name, rows in one.tables.items():
        # Ranks add the parts of a batch in another order than one process.
        torch.testing.assert_close(rows.weight, many.tables[name].weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows.momentum, many.tables[name].momentum, rtol=1e-5, atol=1e-9)
        assert rows.momentum.gt(0).any()
    assert losses(done / other) == pytest.approx(losses(done / "reference"), rel=1e-6, abs=1e-7)


def test_the_rows_lie_where_the_plan_says(done: Path) -> None:
    files = sorted(path.name for path in (done / "trained-2").glob("*.safetensors"))
    assert files == [
        "columns%2Eshop%2Equotient.0-6.0-4.safetensors",
        "columns%2Eshop%2Equotient.0-6.4-8.safetensors",
        "columns%2Eshop%2Eremainder.0-5.0-4.safetensors",
        "columns%2Eshop%2Eremainder.0-5.4-8.safetensors",
        "copied%2Esize.0-23.safetensors",
        "digits%2Ebrand%2Equotient.0-3.safetensors",
        "digits%2Ebrand%2Equotient.3-5.safetensors",
        "digits%2Ebrand%2Eremainder.0-4.safetensors",
        "digits%2Ebrand%2Eremainder.4-7.safetensors",
        "items%2Eitem.0-30.safetensors",
        "own%2Etype.0-38.0-3.safetensors",
        "own%2Etype.0-38.3-6.safetensors",
        "shared.0-51.safetensors",
        "shared.51-101.safetensors",
        "tiny%2Etable%2Eflag.0-1.safetensors",
    ]


@pytest.mark.parametrize("source", WORLDS)
@pytest.mark.parametrize("world", WORLDS)
def test_a_checkpoint_opens_bit_equal_on_any_number_of_ranks_under_any_kind(
    done: Path, source: int, world: int
) -> None:
    before = read_state(done / f"trained-{source}")
    after = read_state(done / f"opened-{source}-on-{world}")
    for name, rows in before.tables.items():
        assert torch.equal(rows.weight, after.tables[name].weight)
        assert torch.equal(rows.momentum, after.tables[name].momentum)
