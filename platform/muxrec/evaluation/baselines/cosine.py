"""Windowed cosine: the training pairs' own score (item-based collaborative filtering)."""

from __future__ import annotations

from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Scorer


def build(view: TrainingView) -> Scorer:
    """Scores by the training pairs' ``score``; items that never met are not recommended."""
    return view.pair_scorer("score")
