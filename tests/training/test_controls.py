"""Controls destroy the meaning they claim to destroy, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from muxrec.errors import RecipeError, TrainingError
from muxrec.features.arrays import Dense, ItemArrays
from muxrec.recipe.model import Evaluation, Recipe
from muxrec.spec.features import FeatureSpec
from muxrec.training.controls import CONTROLS, permute_images, randomise_encoders
from muxrec.training.study import variants

Catalogue = tuple[ItemArrays, np.ndarray]
Features = tuple[FeatureSpec, ...]


def _same(one: Dense, two: Dense) -> bool:
    return np.array_equal(one.values, two.values) and np.array_equal(one.present, two.present)


def test_images_are_dealt_out_among_the_items_that_have_one(
    catalogue: Catalogue, features: Features
) -> None:
    arrays, _ = catalogue
    dealt = permute_images(arrays, features, seed=3)
    has_image = arrays.dense["look"].present | arrays.dense["pixels"].present
    rows = {name: dealt.dense[name].values.reshape(len(arrays), -1) for name in ("look", "pixels")}
    for name, found in rows.items():
        before = arrays.dense[name].values.reshape(len(arrays), -1)
        assert np.array_equal(np.sort(found, axis=0), np.sort(before, axis=0))
        assert (found[has_image] != before[has_image]).any(axis=1).mean() > 0.9
        assert np.array_equal(found[~has_image], before[~has_image])
    moved = {row.tobytes(): at for at, row in enumerate(arrays.dense["look"].values)}
    for at in np.flatnonzero(dealt.dense["look"].present):
        # One permutation for all image features: an item's look and pixels stay together.
        origin = moved[dealt.dense["look"].values[at].tobytes()]
        assert np.array_equal(
            dealt.dense["pixels"].values[at], arrays.dense["pixels"].values[origin]
        )


def test_permuting_images_leaves_everything_else(catalogue: Catalogue, features: Features) -> None:
    arrays, _ = catalogue
    dealt = permute_images(arrays, features, seed=3)
    assert _same(dealt.dense["sentence"], arrays.dense["sentence"])
    assert dealt.sparse == arrays.sparse
    again = permute_images(arrays, features, seed=3)
    assert _same(again.dense["look"], dealt.dense["look"])
    other = permute_images(arrays, features, seed=4)
    assert not _same(other.dense["look"], dealt.dense["look"])


def test_random_encoders_keep_identity_and_lose_similarity(
    catalogue: Catalogue, features: Features
) -> None:
    arrays, cluster = catalogue
    twin = arrays.dense["sentence"]
    twin.values[1], twin.present[1] = twin.values[0], twin.present[0] = twin.values[5], True
    changed = randomise_encoders(arrays, features, seed=0)
    found = changed.dense["sentence"]
    assert np.array_equal(found.values[0], found.values[1])
    assert np.array_equal(found.present, twin.present)
    assert not found.values[~found.present].any()
    here = np.flatnonzero(found.present)[2:]
    unit = found.values[here] / np.linalg.norm(found.values[here], axis=1, keepdims=True)
    cosine, same = unit @ unit.T, cluster[here][:, None] == cluster[here][None, :]
    off = ~np.eye(len(here), dtype=bool)
    # Six standard errors of the mean of some 500 cosines of random vectors of width 24.
    assert abs(cosine[same & off].mean()) < 6 / np.sqrt(24 * (same & off).sum() / 2)
    assert _same(changed.dense["pixels"], arrays.dense["pixels"])
    assert changed.sparse == arrays.sparse


def _with(recipe: Recipe, **evaluation: object) -> Recipe:
    return replace(recipe, evaluation=Evaluation(**evaluation))  # type: ignore[arg-type]


def test_the_study_holds_main_ablations_and_controls_with_all_seeds(
    recipe_of: Callable[..., Recipe],
) -> None:
    recipe = replace(_with(recipe_of(), ablations={"ids only": ("id",)}, seeds=2), seed=10)
    found = [(v.name, v.seed, v.recipe.seed, v.control) for v in variants(recipe)]
    assert found == [
        ("main", 0, 10, None),
        ("main", 1, 11, None),
        ("ids only", 0, 10, None),
        ("ids only", 1, 11, None),
        ("permuted_images", 0, 10, "permuted_images"),
        ("permuted_images", 1, 11, "permuted_images"),
        ("random_encoders", 0, 10, "random_encoders"),
        ("random_encoders", 1, 11, "random_encoders"),
    ]
    assert variants(recipe)[2].recipe.tower.modalities == ("id",)
    assert str(variants(recipe)[3].folder).endswith("planted/train/ids only/seed=1")


def test_controls_without_anything_to_change_are_not_run(
    recipe_of: Callable[..., Recipe],
) -> None:
    names = {v.name for v in variants(recipe_of(tower={"modalities": ("id", "text")}))}
    assert names == {"main", "random_encoders"}
    assert {v.name for v in variants(recipe_of(tower={"modalities": ("id",)}))} == {"main"}
    assert {v.name for v in variants(_with(recipe_of(), controls=False))} == {"main"}


@pytest.mark.parametrize("name", ["main", "a/b", "..", *CONTROLS])
def test_ablation_names_that_cannot_be_folders_are_refused(
    name: str, recipe_of: Callable[..., Recipe]
) -> None:
    with pytest.raises(RecipeError, match="is taken or cannot name a folder"):
        variants(_with(recipe_of(), ablations={name: ("id",)}))


def test_an_ablation_by_an_unknown_modality_is_refused(recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of()
    recipe = replace(recipe, features=recipe.features[:3], tables=recipe.tables)
    with pytest.raises(TrainingError, match="image"):
        variants(_with(recipe, ablations={"image only": ("image",)}))
