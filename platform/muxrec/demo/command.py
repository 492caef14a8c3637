"""``muxrec demo``: write the shop, run every stage, promote, serve, ask, print."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path

import click
import numpy as np

from muxrec import __version__
from muxrec.data.synthetic import World, cluster_name, make_world, write_world
from muxrec.demo.scores import neighbour_table, recall_table
from muxrec.demo.server import free_port, get_json, running_server, similar_items
from muxrec.errors import MuxrecError
from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import load_recipe, output_folder, recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.run_command import save_resolved
from muxrec.stages import run_stages, stage_commands
from muxrec.tracking.server import tracking_uri

ALIAS = "champion"
NEIGHBOURS = 5


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    help="Where the demo writes its shop, its run and its model registry.",
)
@click.option("--fresh", is_flag=True, help="Run all stages again; each skips what it finds done.")
@click.option("--keep-serving", is_flag=True, help="Leave the server on until Ctrl-C.")
def demo(*, folder: Path, fresh: bool, keep_serving: bool) -> None:
    """Logs to served neighbours on a small made-up shop, with every real part in between."""
    started = time.monotonic()
    world = _shop(folder)
    recipe = demo_recipe(folder)
    path = save_resolved(recipe)
    mark = {"recipe": recipe_hash(recipe), "muxrec": __version__}
    if fresh or _done_mark(folder) != mark:
        run_stages(stage_commands(path))
        _muxrec("promote", str(path))
        write_text_atomically(folder / "demo.json", json.dumps(mark))
    else:
        click.echo(f"{folder} is up to date: its run is used again (--fresh runs all stages)")
    _ask(recipe, path, world, keep_serving=keep_serving)
    report = folder / "report"
    click.echo(recall_table(json.loads((report / "metrics.json").read_text(encoding="utf-8"))))
    click.echo(f"\nreport: {(report / 'index.html').resolve()}")
    click.echo(f"done in {time.monotonic() - started:.0f} s")


def demo_recipe(folder: Path) -> Recipe:
    """The shipped recipe with everything inside ``folder``."""
    overrides = [
        f"data.source.interactions.path={json.dumps(str(folder / 'raw' / 'interactions.csv'))}",
        f"data.source.items.path={json.dumps(str(folder / 'raw' / 'items.csv'))}",
        f"output={json.dumps(str(folder))}",
    ]
    with as_file(files("muxrec") / "recipes" / "demo.yaml") as path:
        return load_recipe(path, overrides)


def _shop(folder: Path) -> World:
    raw = folder / "raw"
    if (raw / "interactions.csv").is_file():
        return make_world()
    click.echo(f"writing a made-up shop to {raw}")
    return write_world(raw)


def _done_mark(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _ask(recipe: Recipe, path: Path, world: World, *, keep_serving: bool) -> None:
    labels = {
        row["item_id"]: cluster_name(int(cluster))
        for row, cluster in zip(world.rows, world.cluster, strict=True)
    }
    port = free_port()
    command = serve_command(recipe, port=port)
    with running_server(command, port=port, log=path.with_name("server.log")) as base:
        said = get_json(f"{base}/version")
        what = f"{said['model']} version {said['model_version']} ({said['alias']})"
        click.echo(f"\n{base} serves {what}: bundle {said['bundle']}, {said['items']} items")
        for kind, item in _examples(world).items():
            row = world.rows[item]
            title = f"\n{kind}: {row['title']} ({labels[row['item_id']]})"
            found = similar_items(base, row["item_id"], k=NEIGHBOURS)
            click.echo(neighbour_table(found, labels, title=title))
        click.echo()
        if keep_serving:
            click.pause(f"open {base}/ in a browser; a key stops the server")


def serve_command(recipe: Recipe, *, port: int) -> list[str]:
    """Command line of a server that follows the demo's champion."""
    name = recipe.tracking.model or recipe.name
    program = [sys.executable, "-m", "muxrec.cli", "serve", "--model", f"{name}@{ALIAS}"]
    cache = output_folder(recipe) / "server-cache"
    words = ["--registry", tracking_uri(recipe), "--cache", str(cache), "--port", str(port)]
    return [*program, *words]


def _examples(world: World) -> dict[str, int]:
    """The most bought item, and the new item that was looked at most."""
    counts = np.bincount(world.items, minlength=len(world.rows))
    new = np.where(world.is_late, counts, -1)
    return {"a well-known item": int(np.argmax(counts)), "a new item": int(np.argmax(new))}


def _muxrec(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "muxrec.cli", *words], check=False)
    if done.returncode != 0:
        raise MuxrecError(f"muxrec {words[0]} failed with exit code {done.returncode}")
