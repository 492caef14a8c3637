"""What decides a kernel's speed, read out of its machine code without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import triton

from muxrec_kernels import gate
from muxrec_kernels.machine_code import MachineCode, Variant, faults
from muxrec_kernels.operations import OPERATIONS

pytestmark = pytest.mark.slow
OLDER = "3.6.0"
"""The triton of torch 2.11, which GPU machines still have."""

Run = subprocess.CompletedProcess[str]


def run_gate(*arguments: str, first: Path | None = None) -> Run:
    """The gate in a process without the interpreter; ``first`` goes before all other packages."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if first is not None:
        environment["PYTHONPATH"] = str(first)
    return subprocess.run(
        [sys.executable, "-m", "muxrec_kernels.gate", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def compiling() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def gates(compiling: ThreadPoolExecutor) -> dict[str, Future[Run]]:
    """Every operation's gate, two at a time."""
    return {name: compiling.submit(run_gate, name) for name in OPERATIONS}


@pytest.fixture(scope="module")
def older_triton() -> Path:
    folder = Path(sys.prefix) / f"triton-{OLDER}"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: `make setup` puts triton {OLDER} there on Linux")
    return folder


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_kernel_passes_the_gate(operation: str, gates: dict[str, Future[Run]]) -> None:
    done = gates[operation].result()
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0] == f"triton {triton.__version__}"
    assert len(lines) > 1
    assert all(line.endswith("| ok") for line in lines[1:])


def test_every_kernel_passes_the_gate_under_the_older_triton(older_triton: Path) -> None:
    done = run_gate("--arch", "90", first=older_triton)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith(f"triton {OLDER}\n")


def test_the_gate_fails_on_narrow_loads() -> None:
    """A width of 63 cannot be read 16 bytes at a time: the gate has to see it."""
    code = (
        "import json, sys\n"
        "from muxrec_kernels.machine_code import compile_variant, faults\n"
        "from muxrec_kernels.multiplexed_lookup import triton_kernel, variants\n"
        "found = variants._forward('fp16', 63, 20)\n"
        "made = compile_variant(triton_kernel, found, arch=90)\n"
        "print(json.dumps(faults(found, made, arch=90)))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert any("loads of 16 bytes" in line for line in said)


def test_every_rule_is_judged() -> None:
    rules = Variant("x", "kernel", {}, {}, (), wide_loads=2, needs=("HGMMA",), forbids=("I2F.U8",))
    sound = MachineCode(
        168, 0, {"LDG.E.128": 1, "LDGSTS.E.BYPASS.128": 1, "HGMMA.64x128x16.F32": 4}
    )
    assert faults(rules, sound, arch=90) == []
    for changes, message in (
        ({"stack_bytes": 8}, "spills: 8 bytes of stack"),
        ({"operations": {**sound.operations, "STL": 1}}, "spills: 0 bytes of stack, 1 moves"),
        ({"registers": 169}, "169 registers, at most 168"),
        ({"operations": {**sound.operations, "LDG.E.128": 0}}, "1 loads of 16 bytes, at least 2"),
        ({"operations": {"LDG.E.128": 2}}, "no HGMMA instruction"),
        ({"operations": {**sound.operations, "I2F.U8": 1}}, "a I2F.U8 instruction"),
    ):
        (said,) = faults(rules, replace(sound, **changes), arch=90)
        assert message in said
    assert faults(rules, replace(sound, operations={"LDG.E.128": 2}), arch=80) == []


def test_the_gate_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gate.main(["nothing"])
    assert ended.value.code == 2
    assert "unknown operation nothing: choose from multiplexed_lookup" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gate.main(["multiplexed_lookup"])
    assert "TRITON_INTERPRET=1 is set" in capsys.readouterr().err
