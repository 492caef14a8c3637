"""``muxrec data build`` and ``muxrec data check``."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import click

from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError
from muxrec.manifest import canonical_json
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument
from muxrec_jobs.check import check_snapshot
from muxrec_jobs.report import build_report, build_result, check_report

DAY = click.DateTime(formats=["%Y-%m-%d"])
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of the summary."
)


@click.group()
def data() -> None:
    """Build and check dataset snapshots."""


@data.command()
@recipe_argument
@click.option("--date", "day", type=DAY, help="As-of date; default: the day of the last event.")
@click.option("--from", "first", type=DAY, help="First as-of date of a backfill.")
@click.option("--to", "last", type=DAY, help="Last as-of date of a backfill.")
@click.option("--lookback", type=click.IntRange(min=1), help="Days of events; default: by recipe.")
@click.option("--keep", type=click.IntRange(min=1), help="Runs kept per day; default: all.")
@click.option("--rebuild", is_flag=True, help="Build even when nothing has changed.")
@as_json
def build(
    recipe: Recipe,
    *,
    day: datetime | None,
    first: datetime | None,
    last: datetime | None,
    lookback: int | None,
    keep: int | None,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Turn raw logs and a catalogue into a dataset snapshot, by Spark.

    A second run on the same inputs changes nothing. With --from and --to every day gets a snapshot
    of its own, and CURRENT does not go back to an older day.
    """
    from muxrec_jobs.build import Request, build_dataset
    from muxrec_jobs.session import spark_session

    common = Request(lookback_days=lookback, keep=keep, rebuild=rebuild)
    if first is None and last is None:
        built = build_dataset(recipe, replace(common, day=day.date() if day else None))
        click.echo(canonical_json(build_result(built)) if as_json else build_report(built))
        return
    results = []
    with spark_session():
        for each in _days(day, first, last):
            built = build_dataset(recipe, replace(common, day=each, may_go_back=False))
            if not as_json:
                click.echo(build_report(built))
            results.append(build_result(built))
    if as_json:
        click.echo(canonical_json({"command": "data build", "days": results}))


@data.command()
@recipe_argument
@as_json
def check(recipe: Recipe, *, as_json: bool) -> None:
    """Verify every file of the CURRENT snapshot and its declared expectations."""
    snapshot = Snapshot.open(output_folder(recipe) / "dataset")
    failures = check_snapshot(snapshot, recipe.data)
    result: dict[str, Any] = {"command": "data check", "folder": str(snapshot.folder)}
    result |= {"digest": snapshot.digest, "failures": failures}
    click.echo(canonical_json(result) if as_json else check_report(snapshot, failures))
    broken = {name: rows for name, rows in failures.items() if rows}
    if broken:
        named = ", ".join(f"{name} ({rows} rows)" for name, rows in broken.items())
        raise DataError(f"{snapshot.folder} breaks {len(broken)} expectations: {named}")


def _days(day: datetime | None, first: datetime | None, last: datetime | None) -> list[date]:
    if day is not None:
        raise click.UsageError("--date and --from/--to exclude each other")
    if first is None or last is None:
        raise click.UsageError("a backfill needs both --from and --to")
    if last < first:
        raise click.UsageError(f"--to {last.date()} lies before --from {first.date()}")
    return [first.date() + timedelta(days=i) for i in range((last - first).days + 1)]
