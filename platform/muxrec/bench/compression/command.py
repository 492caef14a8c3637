"""``muxrec bench compression``: quality against bytes, method by method."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from muxrec.bench.compression.click_task import ClickTask
from muxrec.bench.compression.datasets import CLICK_DATA
from muxrec.bench.compression.facts import facts
from muxrec.bench.compression.markdown import markdown_report
from muxrec.bench.compression.page import html_report
from muxrec.bench.compression.plans import contestant
from muxrec.bench.compression.rates import RATES, parse_rates
from muxrec.bench.compression.settings import CLICK_SETTINGS
from muxrec.bench.compression.summary import summarise
from muxrec.bench.compression.sweep import Outcome, Sweep, run_sweep
from muxrec.manifest import write_text_atomically

METHODS = "full,unified-4,unified-2,unified,hashed"
BUDGETS = "0.5,0.2,0.1,0.05,0.02"


class Numbers(click.ParamType):
    """Positive numbers separated by commas."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers, in the given order."""
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected numbers separated by commas, got {value!r}", param, ctx)
        if not all(0 < number < float("inf") for number in numbers):
            self.fail(f"expected numbers above 0, got {value!r}", param, ctx)
        return tuple(dict.fromkeys(numbers))


@click.command()
@click.option("--task", type=click.Choice(["click"]), default="click", show_default=True)
@click.option("--data", type=click.Choice(list(CLICK_DATA)), required=True, help="Data set.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the data set's files.",
)
@click.option(
    "--methods",
    default=METHODS,
    show_default=True,
    help="Table methods separated by commas; unified-4 makes four probes.",
)
@click.option(
    "--budgets",
    type=Numbers(),
    default=BUDGETS,
    show_default=True,
    help="Shares of full tables' bytes; methods without a size to set stand at 1.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--tune",
    default=",".join(str(rate) for rate in RATES),
    show_default=True,
    help="Optimisers and learning rates of the rows, tried on seed 0 of every method and budget.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of results and report; a sweep that was stopped goes on there.",
)
def compression_bench(
    task: str,
    data: str,
    folder: Path,
    methods: str,
    budgets: tuple[float, ...],
    seeds: int,
    tune: str,
    out: Path,
) -> None:
    """Train every method at every budget and write the frontier as Markdown, JSON and a page."""
    names = tuple(dict.fromkeys(contestant(name.strip()).name for name in methods.split(",")))
    sweep = Sweep(names, budgets, seeds, parse_rates(tune))
    loaded = CLICK_DATA[data](folder)
    outcome = run_sweep(sweep, ClickTask(loaded, CLICK_SETTINGS[data]), out)
    command = shlex.join(["muxrec", *sys.argv[1:]])
    for path in write_reports(outcome, sweep, out, name=f"{task}-{data}", command=command):
        click.echo(f"written: {path}")


def write_reports(
    outcome: Outcome, sweep: Sweep, out: Path, *, name: str, command: str
) -> list[Path]:
    """Write ``<name>.md``, ``.html`` and ``.json`` into ``out``; returns the paths."""
    frontier = summarise(outcome.results, outcome.refused)
    said = facts(frontier, sweep, command)
    machine = {"facts": said, "results": [asdict(result) for result in outcome.results]}
    texts = {
        "md": markdown_report(frontier, said),
        "html": html_report(frontier, said),
        "json": json.dumps(machine, indent=1, ensure_ascii=False) + "\n",
    }
    paths = []
    for ending, text in texts.items():
        paths.append(out / f"{name}.{ending}")
        write_text_atomically(paths[-1], text)
    return paths
