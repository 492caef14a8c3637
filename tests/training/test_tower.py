"""The whole tower on a planted catalogue, tables left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.features.arrays import ItemArrays
from muxrec.recipe.model import Tower
from muxrec.spec.features import FeatureSpec
from muxrec.towers.fusion import FUSIONS
from muxrec.towers.matryoshka import cut, trained_widths
from muxrec.towers.output import TowerOutput
from muxrec.towers.tower import ItemTower, used_features

WIDTHS = {"item": 16, "words": 16, "genre": 8, "sentence": 24, "look": 10}
Catalogue = tuple[ItemArrays, np.ndarray]


def _inputs(arrays: ItemArrays, features: tuple[FeatureSpec, ...]) -> list[dict[str, Tensor]]:
    torch.manual_seed(11)
    looked, sparse_present = {}, {}
    for name in (f.name for f in features if f.is_sparse):
        is_present = torch.from_numpy(np.diff(arrays.sparse[name].offsets) > 0)
        looked[name] = torch.randn(len(arrays), WIDTHS[name]) * is_present[:, None]
        sparse_present[name] = is_present
    dense = {f.name: arrays.dense[f.name] for f in features if not f.is_sparse}
    values = {name: torch.from_numpy(x.values) for name, x in dense.items()}
    dense_present = {name: torch.from_numpy(x.present) for name, x in dense.items()}
    return [looked, sparse_present, values, dense_present]


def _tower(settings: Tower, features: tuple[FeatureSpec, ...]) -> ItemTower:
    torch.manual_seed(0)
    return ItemTower(settings, used_features(features, settings.modalities), widths=WIDTHS).eval()


SETTINGS = [
    *(Tower(width=16, fusion=name, hidden=hidden) for name in FUSIONS for hidden in (0, 32)),
    Tower(width=16, modalities=("image",)),
    Tower(width=16, modalities=("id", "text")),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_parts_add_up_to_a_unit_vector(
    settings: Tower, catalogue: Catalogue, features: tuple[FeatureSpec, ...]
) -> None:
    arrays, _ = catalogue
    tower = _tower(settings, features)
    tower.fit_inputs(arrays)
    output = tower.forward_features(*_inputs(arrays, tower.features))
    present = output.modality_present
    has_any = present.any(dim=1)
    assert torch.equal(output.parts.sum(dim=1), output.vector)
    assert not output.parts[~present].any()
    # Rounding of 16 squares in float32.
    norm = torch.linalg.vector_norm(output.vector, dim=1)
    torch.testing.assert_close(norm, has_any.float(), rtol=1e-6, atol=1e-6)
    for at, name in enumerate(tower.modalities):
        alone = torch.linalg.vector_norm(output.modality_vectors[name], dim=1)
        torch.testing.assert_close(alone, present[:, at].float(), rtol=1e-6, atol=1e-6)


def test_modalities_stand_in_the_fixed_order(features: tuple[FeatureSpec, ...]) -> None:
    assert _tower(Tower(), features[::-1]).modalities == ("text", "attributes", "image", "id")


def test_a_score_splits_into_one_number_per_modality(
    catalogue: Catalogue, features: tuple[FeatureSpec, ...]
) -> None:
    tower = _tower(Tower(width=16), features)
    output = tower.forward_features(*_inputs(catalogue[0], tower.features))
    scores = output.vector @ output.vector.T
    reasons = torch.einsum("bmd,cd->bcm", output.parts, output.vector)
    # Two orders of one float32 sum of 4 x 16 products of unit vectors.
    torch.testing.assert_close(reasons.sum(dim=2), scores, rtol=0, atol=2e-6)


def test_values_of_a_missing_modality_change_nothing(
    catalogue: Catalogue, features: tuple[FeatureSpec, ...]
) -> None:
    tower = _tower(Tower(width=16), features)
    looked, sparse_present, dense, dense_present = _inputs(catalogue[0], tower.features)
    none = torch.zeros(len(catalogue[0]), dtype=torch.bool)
    hidden = {name: none for name in dense_present if name != "sentence"}
    gone = {**dense_present, **hidden}
    first = tower.forward_features(looked, sparse_present, dense, gone)
    pictures = torch.full_like(dense["pixels"], 77)
    changed = {**dense, "look": dense["look"] + 5, "pixels": pictures}
    second = tower.forward_features(looked, sparse_present, changed, gone)
    assert torch.equal(first.vector, second.vector)
    content_only = _tower(Tower(width=16, modalities=("text", "attributes", "id")), features)
    assert content_only.modalities == ("text", "attributes", "id")


def test_an_item_without_anything_is_a_zero_vector_with_finite_gradients(
    features: tuple[FeatureSpec, ...], catalogue: Catalogue
) -> None:
    tower = _tower(Tower(width=16, hidden=8), features).train()
    inputs = _inputs(catalogue[0].take(np.arange(3)), tower.features)
    inputs[1] = {name: torch.zeros_like(x) for name, x in inputs[1].items()}
    inputs[3] = {name: torch.zeros_like(x) for name, x in inputs[3].items()}
    output = tower.forward_features(*inputs)
    (output.vector * torch.randn(3, 16)).sum().backward()
    assert not output.vector.any()
    grads = [p.grad for p in tower.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def _at(inputs: list[dict[str, Tensor]], order: Tensor) -> list[dict[str, Tensor]]:
    return [{name: value[order] for name, value in part.items()} for part in inputs]


def test_an_items_vector_does_not_depend_on_its_batch(
    catalogue: Catalogue, features: tuple[FeatureSpec, ...]
) -> None:
    tower = _tower(Tower(width=16, hidden=8), features)
    inputs = _inputs(catalogue[0], tower.features)
    order = torch.randperm(len(catalogue[0]))[:40]
    whole: TowerOutput = tower.forward_features(*inputs)
    some = tower.forward_features(*_at(inputs, order))
    # Matrix products of other shapes sum in another order.
    torch.testing.assert_close(some.parts, whole.parts[order], rtol=0, atol=1e-5)


def test_training_hides_ids_and_inference_does_not(
    catalogue: Catalogue, features: tuple[FeatureSpec, ...]
) -> None:
    tower = _tower(Tower(width=16, id_dropout=1.0, dropout=0.0), features)
    inputs = _inputs(catalogue[0], tower.features)
    assert tower.forward_features(*inputs).modality_present[:, 3].all()
    trained = tower.train().forward_features(*inputs)
    content = trained.modality_present[:, :3].any(dim=1)
    assert not trained.modality_present[content, 3].any()
    assert not trained.parts[content, 3].any()


def test_features_of_one_table_have_layers_of_their_own(
    features: tuple[FeatureSpec, ...],
) -> None:
    names = [name for name, _ in _tower(Tower(), features).named_parameters()]
    assert len([name for name in names if name.endswith("projections.of:words.linear.weight")]) == 1
    assert len([name for name in names if name.endswith("projections.of:genre.linear.weight")]) == 1


def test_a_feature_may_be_called_type_or_hold_a_dot(catalogue: Catalogue) -> None:
    named = tuple(FeatureSpec(name, "vector", ("v",), "text", width=24) for name in ("type", "a.b"))
    tower = ItemTower(Tower(width=8), named, widths={"type": 24, "a.b": 24}).eval()
    x, yes = torch.randn(2, 24), torch.ones(2, dtype=torch.bool)
    output = tower.forward_features({}, {}, {"type": x, "a.b": x}, {"type": yes, "a.b": yes})
    assert output.vector.shape == (2, 8)


def test_a_number_that_never_varied_in_training_has_no_say(catalogue: Catalogue) -> None:
    arrays, _ = catalogue
    arrays.dense["look"].values[:, 3] = arrays.dense["look"].present * 2.5
    spec = (FeatureSpec("look", "image", ("p",), "image", encoder="descriptor"),)
    tower = ItemTower(Tower(width=8), spec, widths={"look": 10}).eval()
    tower.fit_inputs(arrays)
    values, yes = torch.randn(4, 10), torch.ones(4, dtype=torch.bool)
    first = tower.forward_features({}, {}, {"look": values}, {"look": yes}).vector
    values[:, 3] += 100
    assert torch.equal(
        first, tower.forward_features({}, {}, {"look": values}, {"look": yes}).vector
    )


def test_unknown_modalities_are_refused_by_name(features: tuple[FeatureSpec, ...]) -> None:
    with pytest.raises(TrainingError, match=r"image.*declared: id, text"):
        used_features(features[:2], ("text", "image"))


def test_cutting_works_at_trained_widths_only() -> None:
    settings = Tower(width=32, matryoshka=(8, 16))
    assert trained_widths(settings) == (8, 16, 32)
    vectors = torch.randn(5, 32)
    short = cut(vectors, 8, trained=trained_widths(settings))
    torch.testing.assert_close(short, torch.nn.functional.normalize(vectors[:, :8], dim=1))
    with pytest.raises(TrainingError, match="width 12 was not trained; this tower has 8, 16, 32"):
        cut(vectors, 12, trained=trained_widths(settings))


@pytest.mark.parametrize("widths", [(16, 8), (0, 8), (8, 64), (8, 8)])
def test_impossible_prefix_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(TrainingError, match="must rise within"):
        trained_widths(replace(Tower(width=32), matryoshka=widths))
