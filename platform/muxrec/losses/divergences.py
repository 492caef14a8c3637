"""The divergences by name, and the one that a recipe asks for."""

from __future__ import annotations

from collections.abc import Callable

from muxrec.losses.angular_margin import AngularMargin
from muxrec.losses.engine import Divergence
from muxrec.losses.infonce import cross_entropy
from muxrec.losses.sigmoid import Sigmoid
from muxrec.losses.similarity_distribution import SimilarityDistribution
from muxrec.losses.triplet import Triplet
from muxrec.recipe.divergences import DivergenceName
from muxrec.recipe.model import Objective

DIVERGENCES: dict[DivergenceName, Callable[..., Divergence]] = {
    "cross_entropy": lambda: cross_entropy,
    "sigmoid": Sigmoid,
    "similarity_distribution": SimilarityDistribution,
    "triplet": Triplet,
    "angular_margin": AngularMargin,
}
"""Name -> what makes the divergence of its options; the contract test runs over every entry."""


def divergence_of(settings: Objective) -> Divergence:
    """The divergence of a recipe's objective, with its options; new weights where it learns."""
    return DIVERGENCES[settings.divergence](**settings.all_divergence_options())
