"""Which of a run's trainings is exported."""

from __future__ import annotations

from muxrec.errors import TrainingError
from muxrec.features.prepare import Prepared
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.training.done import is_done, read_done
from muxrec.training.job import Job
from muxrec.training.study import MAIN, Variant, variants


def choose_variant(
    recipe: Recipe, prepared: Prepared, dataset: str, *, seed: int | None
) -> Variant:
    """The wanted repetition of ``main``, or the best one by its validation metric.

    Args:
        recipe: The run's recipe.
        prepared: Prepared items.
        dataset: Digest of the dataset snapshot.
        seed: Repetition; None for the best, the first one of equals.

    Raises:
        TrainingError: None of them was trained to the end with this recipe and dataset.
    """
    mains = [variant for variant in variants(recipe) if variant.name == MAIN]
    wanted = [variant for variant in mains if seed in (None, variant.seed)]
    ready = [variant for variant in wanted if _is_trained(variant, prepared, dataset)]
    if not ready:
        which = f"seed {seed}" if seed is not None else f"any of {len(mains)} seeds"
        raise TrainingError(
            f"{output_folder(recipe)}/train/{MAIN} holds no finished training of this recipe and "
            f"dataset for {which}: run `muxrec train RECIPE`"
        )
    return max(ready, key=lambda variant: (_rank(variant), -variant.seed))


def _is_trained(variant: Variant, prepared: Prepared, dataset: str) -> bool:
    job = Job(variant.recipe, prepared, [], variant.folder, dataset, control=variant.control)
    return is_done(variant.folder, job.identity)


def validation_of(variant: Variant) -> float | None:
    """The variant's validation metric; None where its period had no queries."""
    return (read_done(variant.folder) or {}).get("validation")


def _rank(variant: Variant) -> float:
    found = validation_of(variant)
    return float("-inf") if found is None else found
