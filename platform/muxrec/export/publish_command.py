"""``muxrec publish``, ``promote`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path

import click

from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument
from muxrec.tracking import aliases, registry


@click.command()
@recipe_argument
@click.option(
    "--bundle",
    "folder",
    type=click.Path(path_type=Path),
    help="Bundle to register; the run's current one by default.",
)
@click.option("--promote", "is_promoted", is_flag=True, help="Make it the champion at once.")
def publish(*, recipe: Recipe, folder: Path | None, is_promoted: bool) -> None:
    """Register a verified bundle with MLflow and point `challenger` to it."""
    published = registry.publish(recipe, folder or output_folder(recipe) / "bundles")
    what = "registered" if published.is_new else "already registered"
    click.echo(f"{what} {published.name} version {published.version} at {published.uri}")
    click.echo(f"bundle {published.digest}")
    click.echo(f"{aliases.CHALLENGER}: {published.version}")
    if is_promoted:
        _show(aliases.promote(recipe, published.version), recipe)


@click.command()
@recipe_argument
@click.option("--version", help="Version to promote; the challenger by default.")
@click.option("--gate", "metric", metavar="METRIC", help="Metric that must not be worse.")
@click.option(
    "--max-drop",
    type=float,
    default=0.0,
    show_default=True,
    help="How much worse than the champion the gated metric may be.",
)
@click.option("--force", is_flag=True, help="Promote even where the gate says no.")
def promote(
    *, recipe: Recipe, version: str | None, metric: str | None, max_drop: float, force: bool
) -> None:
    """Make a version the champion; the old champion becomes `previous`."""
    gate = None if metric is None else aliases.Gate(metric, max_drop)
    _show(aliases.promote(recipe, version, gate=gate, force=force), recipe)


@click.command()
@recipe_argument
def rollback(*, recipe: Recipe) -> None:
    """Make the previous champion the champion again."""
    _show(aliases.rollback(recipe), recipe)


def _show(moves: list[aliases.Move], recipe: Recipe) -> None:
    for move in moves:
        click.echo(f"{aliases.model_name(recipe)} {move}")
    if not moves:
        click.echo(f"{aliases.model_name(recipe)}: it is the champion already, nothing moved")
