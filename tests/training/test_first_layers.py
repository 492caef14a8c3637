"""Features that share a table's rows are told apart by the tower, whatever a recipe sets."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from muxrec.errors import TrainingError
from muxrec.recipe.model import Tower
from muxrec.spec.features import FeatureSpec
from muxrec.towers.first_layers import check_first_layers
from muxrec.towers.fusion import FUSIONS
from muxrec.towers.tower import ItemTower

WIDTH = 8
SAME = (
    FeatureSpec("brand", "id", ("brand",), "attributes", table="shared"),
    FeatureSpec("genre", "bag", ("genre",), "attributes", table="shared"),
)
APART = (SAME[0], FeatureSpec("item", "id", ("item",), "id", table="shared"))
SETTINGS = [
    Tower(width=16, fusion=fusion, hidden=hidden, normalise=normalise)
    for fusion, hidden, normalise in product(FUSIONS, (0, 16), (False, True))
]


def tower_of(settings: Tower, features: tuple[FeatureSpec, ...]) -> ItemTower:
    torch.manual_seed(0)
    widths = {feature.name: WIDTH for feature in features}
    return ItemTower(settings, features, widths=widths).eval()


def vectors(tower: ItemTower, *rows: Tensor) -> Tensor:
    names = [feature.name for feature in tower.features]
    looked = dict(zip(names, rows, strict=True))
    present = {name: torch.ones(len(rows[0]), dtype=torch.bool) for name in names}
    return tower.forward_features(looked, present, {}, {}).vector


@pytest.mark.parametrize("features", [SAME, APART], ids=["one modality", "two modalities"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_that_change_places_between_features_give_another_vector(
    settings: Tower, features: tuple[FeatureSpec, ...]
) -> None:
    tower, left, right = tower_of(settings, features), *torch.randn(2, 5, WIDTH)
    # A sum or product of raw rows would be the same either way.
    moved = (vectors(tower, left, right) - vectors(tower, right, left)).abs().amax(dim=1)
    assert (moved > 1e-3).all()


def test_a_layer_that_two_features_of_a_table_share_is_refused() -> None:
    tower = tower_of(Tower(width=16), SAME)
    first, second = tower.encoders["attributes"].projections.values()  # type: ignore[union-attr]
    second.linear = first.linear  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match=r"brand reads table shared, .* no first layer of its"):
        check_first_layers(tower, SAME)


def test_a_tower_that_reads_raw_rows_is_refused() -> None:
    with pytest.raises(TrainingError, match="project every feature before they are joined"):
        check_first_layers(nn.Linear(WIDTH, 16), SAME)


def test_a_table_of_one_feature_needs_no_layer() -> None:
    check_first_layers(nn.Linear(WIDTH, 16), SAME[:1])
