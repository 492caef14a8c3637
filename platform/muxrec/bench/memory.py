"""``muxrec bench memory``: peak memory of every stage with a table of ten million rows.

The demo's shop and recipe with larger tables, through the real commands: a stage is a process, and
its peak is what the kernel kept of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click

from muxrec.bench.process_peaks import largest_child, processes_below, run_to_end
from muxrec.bench.report import Cell, Table, write_report
from muxrec.data.synthetic import World, write_world
from muxrec.demo.command import demo_recipe
from muxrec.demo.server import free_port, running_server, similar_items
from muxrec.errors import MuxrecError
from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import dump_recipe, load_recipe
from muxrec.stages import stage_commands

FORMS = {
    "one unified table": "unified",
    "one table per feature": "hashed",
}
STAGES = ("train", "export")
COLUMNS = ("tables", *(f"{stage}, GiB" for stage in STAGES), "serve, GiB", "rows on disk, MiB")
GIB = 2**30
ASKED = 20
RAW = ("title", "description", "tags", "price")
"""Columns of a raw item; its picture is left out."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        rows: Rows of the tables that words, tags and prices read, in all.
        width: Numbers per row.
        serve_dtype: Format of the served rows.
    """

    rows: int
    width: int
    serve_dtype: str


@click.command()
@click.option("--rows", default=10_000_000, show_default=True, help="Rows of the tables in all.")
@click.option("--width", default=16, show_default=True, help="Numbers per row.")
@click.option(
    "--serve-dtype",
    type=click.Choice(["fp32", "fp16", "int8", "int4", "int2"]),
    default="int8",
    show_default=True,
    help="Format of the served rows.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
def memory_bench(rows: int, width: int, serve_dtype: str, out: Path | None) -> None:
    """Train, export and serve the made-up shop with large tables; print each process's peak."""
    sizes = Sizes(rows, width, serve_dtype)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        world, path = _shop(folder)
        found = tuple(
            _measure(folder / method, path, world, title, method, sizes)
            for title, method in FORMS.items()
        )
    note = (
        f"{rows:,} rows of {width} floats, served as {serve_dtype}, for the words, tags and prices "
        "of 480 made-up items; one epoch. Largest resident memory of each process (VmHWM); the "
        "server's after 20 items were looked up and 20 raw ones encoded: it maps the tables, and "
        "rows that nobody has read take nothing yet."
    )
    table = Table("Peak memory of large tables", note, COLUMNS, found)
    click.echo(table.markdown())
    if out is not None:
        markdown, machine = write_report(out, "bench-memory", [table])
        click.echo(f"wrote {markdown} and {machine}")


def _shop(folder: Path) -> tuple[World, Path]:
    """The shop's raw files and its dataset; returns the recipe that made it."""
    world = write_world(folder / "raw")
    path = folder / "recipe.yaml"
    write_text_atomically(path, dump_recipe(demo_recipe(folder)))
    run_to_end(stage_commands(path)["data"], log=folder / "data.log")
    return world, path


def _measure(
    folder: Path, base: Path, world: World, title: str, method: str, sizes: Sizes
) -> tuple[Cell, ...]:
    folder.mkdir()
    overrides = [
        f"tables.1.method={method}",
        f"tables.1.rows={sizes.rows}",
        f"tables.1.width={sizes.width}",
        f"tables.1.serve_dtype={sizes.serve_dtype}",
        "train.epochs=1",
        "evaluation.ablations={}",
        f"output={folder}",
    ]
    (folder / "dataset").symlink_to(base.parent / "dataset")
    path = folder / "recipe.yaml"
    write_text_atomically(path, dump_recipe(load_recipe(base, overrides)))
    commands = stage_commands(path)
    peaks = [run_to_end(commands[s], log=folder / f"{s}.log").peak_bytes / GIB for s in STAGES]
    disk = sum(file.stat().st_size for file in folder.glob("bundles/*/*.onnx*")) / 2**20
    return (title, *peaks, _served(folder, world) / GIB, disk)


def _served(folder: Path, world: World) -> int:
    """Largest peak of the server's processes after some questions and some raw items encoded."""
    port = free_port()
    program = [sys.executable, "-m", "muxrec.cli", "serve", "--port", str(port)]
    command = [*program, "--bundle", str(folder / "bundles")]
    before = processes_below()
    with running_server(command, port=port, log=folder / "server.log") as base:
        for row in world.rows[:ASKED]:
            similar_items(base, row["item_id"], k=10)
            _embed(base, {name: row[name] for name in RAW})
        return largest_child(but=before)


def _embed(base: str, item: dict[str, Any]) -> None:
    """Have a raw item encoded, which reads the large tables."""
    body = json.dumps({"items": [{**item, "price": float(item["price"])}]}).encode()
    request = Request(f"{base}/v1/embed", body, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        if len(json.load(answer)["vectors"]) != 1:
            raise MuxrecError(f"{base}/v1/embed gave no vector for one raw item")
