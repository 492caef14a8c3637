"""Co-occurrence: the summed weight of a training pair, not scaled by the items' popularity."""

from __future__ import annotations

from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Scorer


def build(view: TrainingView) -> Scorer:
    """Scores by the training pairs' ``weight``; items that never met are not recommended."""
    return view.pair_scorer("weight")
