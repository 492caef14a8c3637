"""The RECIPE argument and the ``--set`` option that commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from muxrec.recipe.load import load_recipe


def recipe_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes RECIPE and repeatable ``--set`` and gets ``recipe: Recipe``.

    Use it below ``@click.command()``::

        @click.command()
        @recipe_argument
        def train(recipe: Recipe) -> None: ...
    """

    @click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a recipe key, e.g. train.lr=3e-4 or features.0.probes=2; repeatable.",
    )
    @functools.wraps(command)
    def with_recipe(
        *args: Any,
        recipe_path: Path,
        overrides: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return command(*args, recipe=load_recipe(recipe_path, overrides), **options)

    return with_recipe
