"""What launchers launch compiles: types and constants as Triton itself makes them of arguments.

The interpreter proves what kernels compute, and the gate compiles signatures that are written by
hand. Neither sees what a launch makes of its arguments: a size of 1 becomes a constant, which has
no type to convert from, a multiple of 16 another kernel, and the launcher picks tiles and warps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import muxrec_kernels
from muxrec_kernels.operations import OPERATIONS

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
OLDER = Path(sys.prefix) / "triton-3.6.0"
ONE = "one of everything"
"""The call of every file in ``launches/`` in which every size that reaches a kernel is 1."""
LAUNCHERS = (*OPERATIONS, "bench")

Run = subprocess.CompletedProcess[str]


def compile_launches(*arguments: object, first: Path | None = None) -> Run:
    """The worker in a process without the interpreter; ``first`` goes before other packages."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if first is not None:
        environment["PYTHONPATH"] = str(first)
    return subprocess.run(
        [sys.executable, str(HERE / "launch_worker.py"), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def calls_of(launcher: str) -> Path:
    return HERE / "launches" / f"{launcher}.py"


@pytest.fixture(scope="module")
def compiled() -> Iterator[dict[str, Future[Run]]]:
    """The launches of every launcher, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(compile_launches, calls_of(name)) for name in LAUNCHERS}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launch_compiles(launcher: str, compiled: dict[str, Future[Run]]) -> None:
    done = compiled[launcher].result()
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith("| ok")] == []
    source = Path(muxrec_kernels.__file__).parent / launcher / "triton_kernel.py"
    written = {
        line[4 : line.index("(")]
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.startswith("def ") and "_kernel(" in line
    }
    assert written
    assert written <= {line.split(" | ")[0] for line in lines}


@pytest.mark.skipif(not OLDER.is_dir(), reason=f"no {OLDER}: `make setup` puts it there on Linux")
def test_sizes_of_1_compile_under_the_older_triton() -> None:
    done = compile_launches("--only", ONE, *map(calls_of, LAUNCHERS), first=OLDER)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) > len(LAUNCHERS)
    assert [line for line in lines if not line.endswith("| ok")] == []


KERNELS = """
import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(out, size):
    tl.store(out, size.to(tl.int64))


@triton.jit
def hungry_kernel(left, right, out, SIDE: tl.constexpr, DEPTH: tl.constexpr):
    row, column = tl.arange(0, SIDE)[:, None], tl.arange(0, DEPTH)[None, :]
    a = tl.load(left + row * DEPTH + column)
    b = tl.load(right + row * DEPTH + column)
    tl.store(out + row * SIDE + tl.arange(0, SIDE)[None, :], tl.dot(a, tl.trans(b)))


def launch(size, programs=1):
    broken_kernel[(programs,)](torch.empty(1, dtype=torch.int64), size)


CALLS = {
    "two": lambda: launch(2),
    "one": lambda: launch(1),
    "sixteen": lambda: launch(16),
    "far too many programs": lambda: launch(2, 2**31),
    "too much shared memory": lambda: hungry_kernel[(1,)](
        *torch.empty(2, 8, dtype=torch.float16), torch.empty(1), SIDE=128, DEPTH=512, num_warps=8
    ),
    "no such argument": lambda: broken_kernel[(1,)](torch.empty(1), 2, SIDE=1),
}
"""


def test_the_check_sees_what_a_launch_would_fail_on(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(KERNELS, encoding="utf-8")
    done = compile_launches(tmp_path / "calls.py")
    assert done.returncode == 0, done.stderr[-3000:]
    two, one, sixteen, *others = done.stdout.splitlines()
    assert two == "broken_kernel | out=*i64:D size=i32 | ok"
    assert one.startswith("broken_kernel | out=*i64:D size=1 | ")
    assert "has no attribute 'to'" in one
    assert sixteen == "broken_kernel | out=*i64:D size=i32:D | ok"
    grid, shared, unknown = (line.rsplit(" | ", 1)[1] for line in others)
    assert grid == "ValueError: a grid of (2147483648, 1, 1) cannot be launched"
    assert shared.startswith("OutOfResources: out of resource: shared memory, Required: 262144")
    assert unknown.startswith("KeyError: 'Keyword argument SIDE was specified")
