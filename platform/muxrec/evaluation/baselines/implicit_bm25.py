"""BM25 of the ``implicit`` package: users in common, busy users and popular items damped."""

from __future__ import annotations

from implicit.nearest_neighbours import BM25Recommender

from muxrec.evaluation.baselines.neighbours import neighbour_scorer
from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Scorer


def build(view: TrainingView) -> Scorer:
    """Scores by the product of BM25-weighted user columns, the package's K1 1.2 and B 0.75."""
    return neighbour_scorer(BM25Recommender, view)
