"""Random: the level that any result must be read against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Positions, Scorer, Scores


@dataclass(frozen=True)
class _Random:
    count: int
    seed: int

    def __call__(self, queries: Positions) -> Scores:
        rows = [np.random.default_rng([self.seed, query]).random(self.count) for query in queries]
        return np.array(rows, dtype=np.float32).reshape(len(queries), self.count)


def build(view: TrainingView) -> Scorer:
    """Scores by a generator seeded with the recipe's seed and the query: blocks do not matter."""
    return _Random(view.keys.size, view.recipe.seed)
