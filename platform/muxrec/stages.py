"""The stages of a run: one process each, timed, stopped at the first that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from muxrec.errors import MuxrecError

STAGES = {
    "data": ("data", "build"),
    "train": ("train",),
    "eval": ("eval",),
    "export": ("export",),
    "index": ("index",),
    "publish": ("publish",),
}
"""Stage -> words of its command, in the order of a run."""


@dataclass(frozen=True)
class StageTime:
    """How long one stage took.

    Attributes:
        name: Stage name.
        wall_s: Seconds from start to end.
        code: Exit code; 0 is done.
    """

    name: str
    wall_s: float
    code: int


class StageFailedError(MuxrecError):
    """A stage of a run ended with an exit code other than 0; the stages after it did not start."""


def stage_commands(recipe: Path, *, start: str = "data") -> dict[str, list[str]]:
    """Command line of each stage from ``start`` on, each a ``muxrec`` process of its own.

    A process per stage frees the stage's memory (Spark's, torch's) and makes every stage runnable
    by hand.
    """
    names = list(STAGES)
    program = [sys.executable, "-m", "muxrec.cli"]
    return {name: [*program, *STAGES[name], str(recipe)] for name in names[names.index(start) :]}


def run_stages(commands: dict[str, list[str]]) -> list[StageTime]:
    """Run the stages in order and print a heading before each and a table of times at the end.

    Raises:
        StageFailedError: A stage failed; the message names it and how to go on from it.
    """
    times: list[StageTime] = []
    for number, (name, command) in enumerate(commands.items(), 1):
        click.secho(f"[{number}/{len(commands)}] {name}", bold=True)
        times.append(_run(name, command))
        if times[-1].code != 0:
            break
    click.echo(_table(times, commands))
    if times and times[-1].code != 0:
        last = times[-1]
        what = f"stage {last.name} failed with exit code {last.code} after {last.wall_s:.0f} s"
        again = f"muxrec run {commands[last.name][-1]} --from {last.name}"
        raise StageFailedError(f"{what}; its reason stands above; go on with: {again}")
    return times


def _run(name: str, command: Sequence[str]) -> StageTime:
    sys.stdout.flush()
    start = time.monotonic()
    done = subprocess.run(command, check=False)
    return StageTime(name, time.monotonic() - start, done.returncode)


def _table(times: list[StageTime], commands: dict[str, list[str]]) -> str:
    lines = [f"{'stage':<10}{'wall s':>9}"]
    lines += [f"{t.name:<10}{t.wall_s:>9.1f}{'' if t.code == 0 else '  failed'}" for t in times]
    lines += [f"{name:<10}{'-':>9}" for name in list(commands)[len(times) :]]
    return "\n".join([*lines, f"{'all':<10}{sum(t.wall_s for t in times):>9.1f}"])
