"""``muxrec eval`` and ``muxrec compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from muxrec.data.snapshot import Snapshot
from muxrec.evaluation.comparison import Compared, compare_runs
from muxrec.evaluation.results import cell, percent, spoken
from muxrec.evaluation.run import Evaluated, evaluate_run
from muxrec.evaluation.study import MAIN
from muxrec.evaluation.summary import headline, metric_names
from muxrec.evaluation.trained_rows import TrainedRun
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument

_SHOWN = ("all", "warm", "cold")


@click.command("eval")
@recipe_argument
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Period that is ranked; validation is for choices and goes to report/validation.",
)
def evaluate(recipe: Recipe, *, split: str) -> None:
    """Rank the whole catalogue with every baseline and trained tower, and write the report."""
    runs = planned_runs(recipe)
    found = evaluate_run(recipe, runs, split=split)
    _log(recipe, runs, found)
    click.echo(_summary(found.report))
    for note in found.report["notes"]:
        click.echo(f"- {note}")
    click.echo(f"report {found.folder / 'index.html'}")


@click.command("compare")
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path)
)
@click.option("--row", default=MAIN, show_default=True, help="Row that is compared.")
@click.option("--slice", "part", default="all", show_default=True, help="Slice that is compared.")
@click.option("--truth", default=None, help="Ground truth; the first one when left out.")
def compare(runs: tuple[Path, ...], *, row: str, part: str, truth: str | None) -> None:
    """Compare two or more run folders, each with the first one, paired by query."""
    if len(runs) < 2:
        raise click.UsageError("give at least two run folders: the first is compared with the rest")
    for line in _compared(compare_runs(runs, row=row, part=part, truth=truth)):
        click.echo(line)


def planned_runs(recipe: Recipe) -> list[TrainedRun]:
    """Every training that the recipe asks for on the run folder's dataset.

    Raises:
        DataError: The run folder holds no dataset.
    """
    from muxrec.training.job import training_identity
    from muxrec.training.study import variants

    digest = Snapshot.open(output_folder(recipe) / "dataset", verify=False).digest
    return [
        TrainedRun(
            v.name,
            is_control=v.control is not None,
            seed=v.seed,
            folder=v.folder,
            identity=training_identity(v.recipe, dataset=digest, control=v.control),
        )
        for v in variants(recipe)
    ]


def _log(recipe: Recipe, runs: list[TrainedRun], found: Evaluated) -> None:
    """The headline numbers into the MLflow run of the main training, as ``test_recall_at_10``."""
    from muxrec.tracking import RunLogger

    main = next(run for run in runs if run.name == MAIN and run.is_done)
    split = found.report["split"]
    metrics = {f"{split}_{name}": value for name, value in headline(found.report).items()}
    with RunLogger(recipe, folder=main.folder, name=f"{MAIN} seed={main.seed}") as logger:
        logger.metrics(0, metrics)
        for name in ("metrics.json", "results.md", "index.html"):
            logger.artifact(found.folder / name)


def _summary(report: dict[str, Any]) -> str:
    """Text table: every row on all queries, and its first metric on warm and cold ones."""
    if not report["truths"]:
        return f"no item has enough events in the {report['split']} period: nothing to rank"
    names = metric_names(tuple(report["ks"]))
    parts = [part for part in report["truths"][0]["slices"] if part["name"] in _SHOWN]
    heads = [f"{report['split']} period", f"{spoken(names[0])} [95 %]", *map(spoken, names[1:])]
    heads += [f"{spoken(names[0])} {part['name']}" for part in parts[1:]]
    lines = [heads]
    for at, row in enumerate(parts[0]["rows"]):
        cells = [cell(row["metrics"][n], interval=not i) for i, n in enumerate(names)]
        others = [cell(part["rows"][at]["metrics"][names[0]]) for part in parts[1:]]
        lines.append([row["name"], *cells, *others])
    return "\n".join(_aligned(lines))


def _compared(found: list[Compared]) -> list[str]:
    names = list(found[0].levels)
    lines = [[f"{found[0].row} of", *map(spoken, names)]]
    for entry in found:
        lines.append([entry.run, *(percent(entry.levels[n].mean) for n in names)])
        if entry.gaps:
            gaps = [entry.gaps[n] for n in names]
            ends = [
                f"{percent(gap.mean, sign=True)} [{percent(gap.low, sign=True)}, "
                f"{percent(gap.high, sign=True)}]{'*' if gap.is_clear else ''}"
                for gap in gaps
            ]
            lines.append(["  minus the first", *ends])
            lines.append(["  Wilcoxon p", *(f"{gap.p_value:.3f}" for gap in gaps)])
    count = found[0].levels[names[0]].queries
    return [*_aligned(lines), f"{count} queries; * the 95 % interval excludes zero"]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [
        "  ".join(
            text.ljust(width) if not at else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
