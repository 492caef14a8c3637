"""Popularity: the same list for every query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muxrec.data.keys import positions_of
from muxrec.evaluation.baselines.view import TrainingView
from muxrec.evaluation.scoring import Positions, Scorer, Scores


@dataclass(frozen=True)
class _SameForAll:
    scores: npt.NDArray[np.float32]

    @property
    def count(self) -> int:
        return len(self.scores)

    def __call__(self, queries: Positions) -> Scores:
        return np.broadcast_to(self.scores, (len(queries), self.count))


def build(view: TrainingView) -> Scorer:
    """Scores every item by its number of training events."""
    at = positions_of(view.events["item_key"].to_numpy(), view.keys)
    counts = np.bincount(at[at >= 0], minlength=view.keys.size)
    return _SameForAll(counts.astype(np.float32))
