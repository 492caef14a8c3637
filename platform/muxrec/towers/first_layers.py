"""The rule that features of one table are told apart by first-layer weights of their own.

A row that several features share is moved by all of their gradients, each along the direction in
which that feature's first layer reads it. Training turns those directions apart, and a collision
between features then costs little. Where raw rows of different features are added or multiplied
there are no weights to turn, so such a tower is refused.

Source: Coleman et al., Unified Embedding, NeurIPS 2023.
"""

from __future__ import annotations

from collections import Counter

from torch import nn

from muxrec.errors import TrainingError
from muxrec.spec.features import FeatureSpec
from muxrec.towers.projection import FeatureProjection


def check_first_layers(tower: nn.Module, features: tuple[FeatureSpec, ...]) -> None:
    """Refuse a tower in which two features that read one table have no layer of their own each.

    Args:
        tower: A built tower.
        features: The features in use.

    Raises:
        TrainingError: A feature of a table with several readers has no :class:`FeatureProjection`,
            or shares its weights with another one.
    """
    readers = Counter(feature.table for feature in features if feature.is_sparse)
    sharing = {f.name: f.table for f in features if f.is_sparse and readers[f.table] > 1}
    projections = [each for each in tower.modules() if isinstance(each, FeatureProjection)]
    layers = {each.feature: id(each.linear.weight) for each in projections}
    uses = Counter(layers.values())
    for name, table in sharing.items():
        if name not in layers or uses[layers[name]] > 1:
            raise TrainingError(
                f"feature {name} reads table {table}, which other features read too, and has no "
                "first layer of its own in the tower: shared rows can only be told apart by "
                "weights per feature; project every feature before they are joined"
            )
