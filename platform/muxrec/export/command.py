"""``muxrec export`` and ``muxrec index``."""

from __future__ import annotations

from pathlib import Path

import click

from muxrec.bundle import Bundle
from muxrec.bundle import format as names
from muxrec.bundle.rebuild import rebuild_index
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument


@click.command()
@recipe_argument
@click.option("--seed", type=int, help="Repetition to export; the best by validation by default.")
def export(*, recipe: Recipe, seed: int | None) -> None:
    """Make a bundle of the trained main tower: graph, vectors, neighbours, index, pictures."""
    # torch is imported by the export alone; `muxrec index` does without.
    from muxrec.export.pack import export_run

    done = export_run(recipe, seed=seed)
    validation = "" if done.validation is None else f", validation {done.validation:.4f}"
    click.echo(f"exported main seed={done.seed}{validation}")
    click.echo(
        f"graph against torch: largest error {done.parity.max_abs_error:.1e}, same top 10 for "
        f"{done.parity.same_top10:.2%} of {done.parity.items} items"
    )
    if done.quantisation is not None:
        click.echo(
            "quantised tables against fp32: largest error "
            f"{done.quantisation.max_abs_error:.1e}, same top 10 for "
            f"{done.quantisation.same_top10:.2%}"
        )
    _show(done.folder)


@click.command()
@recipe_argument
@click.option(
    "--bundle",
    "folder",
    type=click.Path(path_type=Path),
    help="Bundle to start from; the run's current one by default.",
)
def index(*, recipe: Recipe, folder: Path | None) -> None:
    """Make a new bundle with the recipe's index settings from an exported one."""
    root = output_folder(recipe) / "bundles"
    before = Bundle.open(folder or root)
    after = rebuild_index(root, before, recipe.index)
    if after == before.folder:
        click.echo("the index has these settings already, nothing to do")
    _show(after)


def _show(folder: Path) -> None:
    bundle = Bundle.open(folder, verify=False)
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    graph = sum(size for name, size in sizes.items() if name.startswith(names.TOWER))
    recall = bundle.manifest["index"]["recall"]
    click.echo(
        f"{bundle.count} items, width {bundle.dim}, parts {', '.join(bundle.modalities)}; "
        f"{bundle.manifest['neighbours']} neighbours each; index recall {recall:.3f}"
    )
    click.echo(f"graph {graph / 1e6:.1f} MB, bundle {sum(sizes.values()) / 1e6:.1f} MB: {folder}")
