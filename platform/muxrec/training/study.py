"""The trained rows of the result table: the main model, its ablations and its controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from muxrec.errors import RecipeError
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.towers.tower import used_features
from muxrec.training.build import PreparedItems
from muxrec.training.controls import CONTROLS, ControlName

MAIN = "main"

Prepared = TypeVar("Prepared", bound=PreparedItems)


@dataclass(frozen=True)
class Variant:
    """One training of the study.

    Attributes:
        name: ``main``, an ablation's name, or a control's.
        recipe: The run's recipe with this variant's modalities and seed.
        control: The control whose arrays it is trained on, or None.
        seed: Number of the repetition, from 0; ``recipe.seed`` is the run's seed plus it.
    """

    name: str
    recipe: Recipe
    control: ControlName | None
    seed: int

    @property
    def folder(self) -> Path:
        """``train/<name>/seed=<s>`` below the run's output folder."""
        return output_folder(self.recipe) / "train" / self.name / f"seed={self.seed}"


def variants(recipe: Recipe) -> list[Variant]:
    """Every training of the recipe's study, the main model first, each with every seed.

    Raises:
        RecipeError: An ablation's name is taken or cannot name a folder.
        TrainingError: An ablation names a modality that no feature has.
    """
    _check_names(recipe)
    return [
        Variant(name, replace(arm, seed=recipe.seed + seed), control, seed)
        for name, arm, control in _arms(recipe)
        for seed in range(recipe.evaluation.seeds)
    ]


def _arms(recipe: Recipe) -> Iterator[tuple[str, Recipe, ControlName | None]]:
    yield MAIN, recipe, None
    for name, modalities in recipe.evaluation.ablations.items():
        used_features(recipe.features, modalities)
        yield name, replace(recipe, tower=replace(recipe.tower, modalities=modalities)), None
    features = used_features(recipe.features, recipe.tower.modalities)
    for control, how in CONTROLS.items():
        if recipe.evaluation.controls and how.needs(features):
            yield control, recipe, control


def _check_names(recipe: Recipe) -> None:
    for name in recipe.evaluation.ablations:
        if name in (MAIN, *CONTROLS) or "/" in name or name.startswith("."):
            raise RecipeError(
                f"evaluation.ablations: {name!r} is taken or cannot name a folder: call it "
                "otherwise"
            )


def prepared_for(variant: Variant, prepared: Prepared) -> Prepared:
    """The prepared items that a variant is trained on: changed for a control, else as they are.

    Args:
        variant: The variant.
        prepared: Prepared items, a dataclass with ``arrays``.
    """
    if variant.control is None:
        return prepared
    apply = CONTROLS[variant.control].apply
    arrays = apply(prepared.arrays, variant.recipe.features, seed=variant.recipe.seed)
    return replace(prepared, arrays=arrays)  # pyright: ignore[reportArgumentType]
