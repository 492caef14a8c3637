"""The largest memory that processes took, as the kernel kept it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from muxrec.errors import MuxrecError


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        output: What it printed.
        peak_bytes: Largest resident memory of the process itself.
    """

    output: str
    peak_bytes: int


def run_to_end(command: Sequence[str], *, log: Path) -> Finished:
    """Run a command and wait for it.

    Args:
        command: Its words.
        log: File that takes what it prints.

    Raises:
        MuxrecError: It failed; the message holds its last line.
    """
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    output = log.read_text(encoding="utf-8", errors="replace")
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code != 0:
        last = (output.strip().splitlines() or ["it printed nothing"])[-1]
        raise MuxrecError(f"{' '.join(command)} ended with code {code}: {last} ({log})")
    return Finished(output, usage.ru_maxrss * 1024)


def processes_below() -> frozenset[int]:
    """Numbers of the running processes below this one."""
    return frozenset(_below(os.getpid()))


def largest_child(*, but: frozenset[int] = frozenset()) -> int:
    """Largest peak among the running processes below this one, in bytes.

    Args:
        but: Processes that do not count, e.g. those that ran before.
    """
    return max((_peak(pid) for pid in processes_below() - but), default=0)


def _below(parent: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # It has ended meanwhile.
            continue
        # The name in brackets may hold blanks; the parent is the second word after it.
        if int(found.rpartition(")")[2].split()[1]) == parent:
            yield int(folder.name)
            yield from _below(int(folder.name))


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(next(found, "0")) * 1024
