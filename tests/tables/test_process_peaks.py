"""Peaks are those of the process that was asked about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muxrec.bench.process_peaks import largest_child, processes_below, run_to_end
from muxrec.errors import MuxrecError

SIZE = 300 * 2**20
TOUCH = f"a = bytearray({SIZE}); a[::4096] = b'x' * len(a[::4096])"


def test_the_peak_of_a_finished_process_holds_what_it_touched_and_gave_back(tmp_path: Path) -> None:
    code = f"{TOUCH}; del a; print('done')"
    done = run_to_end([sys.executable, "-c", code], log=tmp_path / "log")
    assert done.output == "done\n"
    assert done.peak_bytes >= SIZE


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    code = "print('first'); print('the reason'); raise SystemExit(3)"
    with pytest.raises(MuxrecError, match="ended with code 3: the reason"):
        run_to_end([sys.executable, "-c", code], log=tmp_path / "log")


def test_the_largest_of_the_running_processes_below_counts() -> None:
    code, before = f"{TOUCH}; del a; print('ready', flush=True); input()", processes_below()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert SIZE <= largest_child(but=before) < 2 * SIZE
        child.communicate("\n")
