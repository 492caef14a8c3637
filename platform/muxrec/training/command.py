"""``muxrec train``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import click

from muxrec.data.snapshot import Snapshot
from muxrec.features.prepare import Prepared, prepare_items
from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import dump_recipe, output_folder
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument
from muxrec.tracking import RunLogger
from muxrec.training.device import pick_device
from muxrec.training.ranks import Ranks, joined_ranks
from muxrec.training.run import Outcome, earlier_outcome, job_for, train_variant
from muxrec.training.study import MAIN, Variant, variants


@click.command()
@recipe_argument
@click.option(
    "--variants",
    "wanted",
    type=click.Choice(["main", "all"]),
    default="all",
    show_default=True,
    help="The main model alone, or its ablations and controls too.",
)
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Go on from checkpoints and skip what is done, or train again from the start.",
)
def train(recipe: Recipe, wanted: str, resume: bool) -> None:
    """Train the towers of RECIPE on its dataset; run under torchrun for several processes."""
    with joined_ranks(pick_device(recipe.train).type) as ranks:
        snapshot = Snapshot.open(output_folder(recipe) / "dataset")
        prepared = _prepare(recipe, snapshot, ranks)
        for variant in variants(recipe):
            if wanted == "all" or variant.name == MAIN:
                outcome = _train(variant, snapshot, prepared, ranks=ranks, resume=resume)
                if ranks.is_first:
                    click.echo(_line(variant, outcome))


def _prepare(recipe: Recipe, snapshot: Snapshot, ranks: Ranks) -> Prepared:
    """Prepared items; the first rank fills the cache that the others then read."""
    cache = output_folder(recipe) / "cache"
    if ranks.is_first:
        prepared = prepare_items(recipe, snapshot, cache=cache)
        write_text_atomically(output_folder(recipe) / "recipe.yaml", dump_recipe(recipe))
        ranks.barrier()
        return prepared
    ranks.barrier()
    return prepare_items(recipe, snapshot, cache=cache)


def _train(
    variant: Variant, snapshot: Snapshot, prepared: Prepared, *, ranks: Ranks, resume: bool
) -> Outcome:
    job = job_for(variant, snapshot, prepared, ranks=ranks)
    earlier = earlier_outcome(job) if resume else None
    if earlier is not None:
        return earlier
    with _logger(variant, ranks) as logger:
        if logger is not None:
            logger.params(_params(variant))
            logger.dataset(digest=snapshot.digest, folder=snapshot.folder)
            job = replace(job, report=logger.metrics)
        return train_variant(variant, job, resume=resume)


def _logger(variant: Variant, ranks: Ranks) -> AbstractContextManager[RunLogger | None]:
    if not ranks.is_first:
        return nullcontext()
    name = f"{variant.name} seed={variant.seed}"
    return RunLogger(variant.recipe, folder=variant.folder, name=name)


def _params(variant: Variant) -> dict[str, Any]:
    sections = ("tower", "objective", "train")
    flat = {
        f"{section}.{key}": value
        for section in sections
        for key, value in asdict(getattr(variant.recipe, section)).items()
    }
    return {**flat, "seed": variant.recipe.seed, "variant": variant.name}


def _line(variant: Variant, outcome: Outcome) -> str:
    done = outcome.done
    parts = [f"{done['steps']} steps"]
    if done["loss"] is not None:
        parts.append(f"loss {done['loss']:.3f}")
    if done["validation"] is not None:
        parts.append(f"validation {done['validation_metric']} {done['validation']:.4f}")
    parts.append(f"{done['seconds']:.1f} s" if outcome.is_new else "already trained")
    return f"{variant.name} seed={variant.seed}: {', '.join(parts)}"
