"""Hooks and searches of two processes do what those of one process do, however tables are cut."""

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
WORKER = Path(__file__).with_name("staged_rank_worker.py")
KINDS = ("row_wise", "table_wise", "column_wise", "data_parallel")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes filled."""
    folder = tmp_path_factory.mktemp("staged")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps({"rank": rank, "folder": str(folder)})],
            env=environment,
            stdout=(folder / f"{rank}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    codes = []
    for rank in ranks:
        try:
            codes.append(rank.wait(timeout=240 if not any(codes) else 10))
        except subprocess.TimeoutExpired:
            rank.kill()
            codes.append(rank.wait())
    logs = [(folder / f"{rank}.log").read_text()[-3000:] for rank in range(2)]
    assert codes == [0, 0], "\n".join(logs)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_cut_search_and_revive_as_one(done: Path, kind: str) -> None:
    one, many = read_state(done / "alone").tables, read_state(done / kind).tables
    assert one.keys() == many.keys()
    # Each rank evens the gradient of its own half of the batch: a search of its own, but one.
    for name in one.keys() - {"autosrh.f_autosrh"}:
        rows = one[name]
        # Two halves of a batch are added in another order than a whole one.
        torch.testing.assert_close(many[name].weight, rows.weight, rtol=0, atol=1e-4, msg=name)
    assert one["deeplight.f_deeplight"].weight.eq(0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_the_same_on_every_rank(done: Path, kind: str) -> None:
    alone = torch.load(done / "alone" / "maps.0.pt")
    first, second = (torch.load(done / kind / f"maps.{rank}.pt") for rank in range(2))
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        if name.endswith("gates"):
            assert value.ne(1).any()
            continue
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-4, msg=name)
        if name.endswith("codebook"):
            # The entry that nothing used began at 100.
            assert value.abs().max() < 10
