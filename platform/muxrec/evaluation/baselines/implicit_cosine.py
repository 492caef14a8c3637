"""Cosine of the ``implicit`` package: users in common, without a window."""

from __future__ import annotations

from implicit.nearest_neighbours import CosineRecommender

from muxrec.evaluation.baselines.neighbours import neighbour_scorer
from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Scorer


def build(view: TrainingView) -> Scorer:
    """Scores by the cosine of two items' user columns, the package's defaults."""
    return neighbour_scorer(CosineRecommender, view)
