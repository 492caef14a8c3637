"""The kernels' bench: inputs follow their law, answers are checked, and nothing is timed unsaid."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec_kernels.bench import lines, timing
from muxrec_kernels.bench.case import Case, Check
from muxrec_kernels.bench.inputs import draw_ids, draw_lengths, offsets_of
from muxrec_kernels.bench.measure import measure_case, try_case
from muxrec_kernels.bench.roofs import Roof, copy_roof, gather_roof, gather_rows
from muxrec_kernels.operations import OPERATIONS

CPU = torch.device("cpu")
ROOF = Roof(64, 1e9, (8, 1))


def test_ids_follow_their_law() -> None:
    count, distinct = 200_000, 10_000
    for kind, exponent in (("zipf-1.05", 1.05), ("zipf-1.2", 1.2)):
        ids = draw_ids(count, distinct=distinct, kind=kind, seed=1, device=CPU)
        assert int(ids.min()) == 0
        assert int(ids.max()) < distinct
        # The share of the first id: the integral of the law over [1, 2) by that over the whole.
        share = (1 - 2 ** (1 - exponent)) / (1 - (distinct + 1) ** (1 - exponent))
        found = float((ids == 0).float().mean())
        assert abs(found - share) < 5 * math.sqrt(share / count)
    uniform = draw_ids(count, distinct=10, kind="uniform", seed=1, device=CPU)
    assert uniform.bincount().float().std() / 20_000 < 0.02


def test_jagged_bags_have_empty_ones_and_the_mean() -> None:
    lengths = draw_lengths(20_000, length="jagged", seed=2)
    assert int((lengths == 0).sum()) > 500
    assert int(lengths.max()) <= 100
    assert 18 < float(lengths.float().mean()) < 21
    assert offsets_of(lengths, CPU)[-1] == lengths.sum()
    assert draw_lengths(3, length=7, seed=0).tolist() == [7, 7, 7]
    with pytest.raises(ValueError, match="a number or 'jagged', got 'long'"):
        draw_lengths(3, length="long", seed=0)


def test_the_roof_reads_the_rows_that_it_says() -> None:
    table = torch.arange(40 * 16, dtype=torch.int32).view(40, 16)
    rows = torch.randint(40, (64,), generator=torch.Generator().manual_seed(0))
    found = gather_rows(table, rows, lanes=8, steps=4, warps=1)
    assert torch.equal(found, table[rows].view(2, 32, 16).sum(dim=1).int())


def test_roofs_are_bandwidths() -> None:
    gathered = gather_roof(64, CPU, table_bytes=2**16, lookups=64)
    assert gathered.bytes_per_s > 0
    assert gathered.shape
    assert copy_roof(CPU, table_bytes=2**20).bytes_per_s > 0


def case_of(**changes: object) -> Case:
    values = torch.arange(6.0)
    standard = {
        "name": "six numbers",
        "run": {"muxrec": lambda _: values * 2, "eager": lambda _: values + values},
        "bytes_moved": 48,
    }
    return Case(**{**standard, **changes})  # type: ignore[arg-type]


def test_a_case_is_rated_against_roof_peers_and_targets() -> None:
    wanted = {"roof": 1e-9, "eager": 1e9, "gone": 1.0}
    result = measure_case(case_of(targets=wanted, lookups=6, absent={"gone": "not there"}), ROOF)
    assert not result.faults
    assert result.is_repeatable
    assert result.milliseconds["muxrec"] > 0
    ratio = result.milliseconds["eager"] / result.milliseconds["muxrec"]
    assert result.speed_ups == {"eager": pytest.approx(ratio)}
    assert result.roof_share == pytest.approx(result.bytes_per_s / 1e9)
    assert {name: met for name, (_, _, met) in result.targets.items()} == {
        "roof": True,
        "eager": False,
    }
    text = "\n".join(lines.case_lines("op", result))
    assert "target eager 1000000000.00" in text
    assert "MISSED" in text
    assert "gone is absent: not there" in text


def test_a_peer_that_differs_fails_or_breaks_is_said() -> None:
    def broken(_: int) -> object:
        raise RuntimeError("no such device")

    wrong = {"muxrec": lambda _: torch.ones(3), "far": lambda _: torch.zeros(3), "broken": broken}
    result, able = try_case(case_of(run=wrong))
    assert set(able) == {"muxrec", "far"}
    assert "far differs by" in result.faults[0]
    assert "no such device" in result.absent["broken"]


def test_other_bits_are_a_fault() -> None:
    turn = iter(range(100))
    result, _ = try_case(case_of(run={"muxrec": lambda _: torch.tensor([float(next(turn))])}))
    assert result.faults == ["ten calls did not give the same bits"]
    nan = torch.tensor([float("nan"), -0.0])
    assert timing.same_bits(nan, nan.clone())
    assert not timing.same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))


def test_a_check_that_is_not_a_number_fails() -> None:
    assert Check("a", 1e-7, 1e-6).is_passed
    assert not Check("a", float("nan"), 1e-6).is_passed
    assert lines.check_line("op", Check("a", float("inf"), 1e-6)).endswith("FAILED")


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_checked_without_a_device(operation: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device: run the bench itself")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "muxrec_kernels.bench", operation, "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "nothing was timed" in done.stdout
    report = json.loads((tmp_path / "bench-kernels.json").read_text(encoding="utf-8"))
    assert report["checks"][operation]
    assert all(case["is_repeatable"] for case in report["cases"][operation])
    assert not any(case["milliseconds"] for case in report["cases"][operation])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_operation_is_timed_on_a_device(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "muxrec_kernels.bench", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    report = json.loads((tmp_path / "bench-kernels.json").read_text(encoding="utf-8"))
    assert all(case["milliseconds"] for found in report["cases"].values() for case in found)
