"""``muxrec bench compression``: quality against bytes, method by method."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from muxrec.bench.compression.click_task import ClickTask
from muxrec.bench.compression.contestants import contestant
from muxrec.bench.compression.datasets import CLICK_DATA
from muxrec.bench.compression.facts import facts
from muxrec.bench.compression.i2i_data import load_item_data
from muxrec.bench.compression.i2i_task import ItemTask
from muxrec.bench.compression.markdown import markdown_report
from muxrec.bench.compression.page import html_report
from muxrec.bench.compression.rates import RATES, parse_rates
from muxrec.bench.compression.settings import CLICK_SETTINGS
from muxrec.bench.compression.summary import summarise
from muxrec.bench.compression.sweep import Outcome, Sweep, Task, run_sweep
from muxrec.bench.compression.verdict import verdicts
from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import load_recipe

METHODS = "full,full:int8,full:int4,full:int2,narrow,unified-4,unified-2,unified,hashed"
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
@click.option(
    "--task",
    type=click.Choice(["click", "i2i"]),
    default="click",
    show_default=True,
    help="Click prediction on --data, or item-to-item retrieval on the dataset of --recipe.",
)
@click.option("--data", type=click.Choice(list(CLICK_DATA)), help="Data set of the click task.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the data set's files.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="Recipe of the i2i task; `muxrec data build RECIPE` makes its dataset.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the recipe, e.g. train.epochs=3; repeatable.",
)
@click.option(
    "--modalities",
    type=click.Choice(["id", "all"]),
    default="id",
    show_default=True,
    help="Modalities of the i2i tower: ids alone, so that their table decides, or the recipe's.",
)
@click.option(
    "--methods",
    default=METHODS,
    show_default=True,
    help="Table methods separated by commas; unified-4 makes four probes, full:int8 is served as "
    "int8.",
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
    data: str | None,
    folder: Path | None,
    recipe: Path | None,
    overrides: tuple[str, ...],
    modalities: str,
    methods: str,
    budgets: tuple[float, ...],
    seeds: int,
    tune: str,
    out: Path,
) -> None:
    """Train every method at every budget and write the frontier as Markdown, JSON and a page."""
    names = tuple(dict.fromkeys(contestant(name.strip()).name for name in methods.split(",")))
    sweep = Sweep(names, budgets, seeds, parse_rates(tune))
    if task == "click":
        measured = _click_task(data, folder)
    else:
        measured = _item_task(recipe, overrides, is_ids_only=modalities == "id")
    outcome = run_sweep(sweep, measured, out)
    command = shown_command(sys.argv[1:], data=os.environ.get("MUXREC_DATA"))
    name = f"{measured.name}-{measured.dataset}"
    for path in write_reports(
        outcome, sweep, out, name=name, command=command, task=measured.facts()
    ):
        click.echo(f"written: {path}")


def _click_task(data: str | None, folder: Path | None) -> Task:
    if data is None or folder is None:
        raise click.UsageError("--task click needs --data and --folder")
    return ClickTask(CLICK_DATA[data](folder), CLICK_SETTINGS[data])


def _item_task(recipe: Path | None, overrides: tuple[str, ...], *, is_ids_only: bool) -> Task:
    if recipe is None:
        raise click.UsageError("--task i2i needs --recipe")
    return ItemTask(load_item_data(load_recipe(recipe, overrides), is_ids_only=is_ids_only))


def shown_command(arguments: Sequence[str], *, data: str | None) -> str:
    """The command line as others can run it: ``data``, this machine's folder, by its variable."""
    line = shlex.join(["muxrec", *(word for word in arguments if word != "--quiet")])
    return line.replace(data.rstrip("/"), "$MUXREC_DATA") if data else line


def write_reports(
    outcome: Outcome,
    sweep: Sweep,
    out: Path,
    *,
    name: str,
    command: str,
    task: Mapping[str, str],
) -> list[Path]:
    """Write ``<name>.md``, ``.html`` and ``.json`` into ``out``; returns the paths."""
    frontier = summarise(outcome.results, outcome.refused)
    said = facts(frontier, sweep, command, task=task)
    machine = {
        "facts": said,
        "verdicts": verdicts(frontier),
        "results": [asdict(result) for result in outcome.results],
    }
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
