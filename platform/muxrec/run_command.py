"""``muxrec run``: every stage of a recipe, from raw logs to the published bundle."""

from __future__ import annotations

from pathlib import Path

import click

from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import dump_recipe, output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument
from muxrec.stages import STAGES, run_stages, stage_commands


@click.command()
@recipe_argument
@click.option(
    "--from",
    "start",
    type=click.Choice(list(STAGES)),
    default="data",
    show_default=True,
    help="Begin at this stage; the ones before it are taken as done.",
)
def run(recipe: Recipe, start: str) -> None:
    """Run all stages of RECIPE: data, train, eval, export, index, publish."""
    path = save_resolved(recipe)
    click.echo(f"{recipe.name}: writing to {path.parent}")
    run_stages(stage_commands(path, start=start))


def save_resolved(recipe: Recipe) -> Path:
    """Write the resolved recipe into its output folder; returns the file, which stages read.

    Overrides and environment variables are in it already, so a run can be repeated from it.
    """
    path = output_folder(recipe) / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, dump_recipe(recipe))
    return path
