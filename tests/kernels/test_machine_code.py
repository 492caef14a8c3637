"""What decides a memory-bound kernel's speed, read out of its machine code without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton has wheels for Linux only")

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("compile_worker.py")
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "grad": 4}

# Rows whose bytes are a multiple of 16, for single ids and for long bags.
FORWARD = [
    *(("fp32", width, length) for width in (4, 16, 64, 96, 128, 512) for length in (1, 20)),
    *((dtype, width, 20) for dtype in ("fp16", "bf16") for width in (8, 64, 128, 512)),
]
BACKWARD = [("grad", width, 0) for width in (16, 64, 128, 512)]

# 64 Ki registers per multiprocessor over 168 x 32 threads leave 12 programs of 4 KiB in flight:
# 48 KiB, twice what hides the memory's latency at full bandwidth.
MOST_REGISTERS = 168


def compile_all(arch: int, cases: list[tuple[str, int, int]]) -> list[dict]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(WORKER), json.dumps({"arch": arch, "cases": cases})]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(report: dict) -> None:
    dtype, width, _ = report["case"]
    bags, lanes, warps = report["tile"]
    operations = report["operations"]
    spilled = {name: n for name, n in operations.items() if name.startswith(("STL", "LDL"))}
    assert report["stack_bytes"] == 0, report
    assert not spilled, report
    assert report["registers"] <= MOST_REGISTERS, report
    # One pass of a program over its rows, in loads of 16 bytes by every thread.
    row_bytes = triton.next_power_of_2(width) * BYTES[dtype]
    needed = max(1, bags * lanes * row_bytes // (16 * 32 * warps))
    wide = sum(n for name, n in operations.items() if name.startswith("LDG.E.128"))
    assert wide >= needed, report
    # A narrow read of a row would be of the row's own type: two bytes for 16-bit tables.
    assert not any(".U16" in name or ".S16" in name for name in operations), report


@pytest.mark.parametrize("arch", [90, 80])
def test_rows_are_read_in_sixteen_bytes_without_spills(arch: int) -> None:
    cases = [*FORWARD, *BACKWARD] if arch == 90 else [FORWARD[4], FORWARD[-3], BACKWARD[1]]
    reports = compile_all(arch, cases)
    assert len(reports) == len(cases)
    for report in reports:
        check(report)


def test_the_gate_sees_narrow_loads() -> None:
    (report,) = compile_all(90, [("fp16", 63, 20)])
    with pytest.raises(AssertionError):
        check(report)
