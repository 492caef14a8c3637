"""The triplet loss with semi-hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from muxrec.losses.engine import Scores, Target, row_sums

_CELLS = 2**24
"""Entries of positives times candidates that are looked at in one piece."""


@dataclass(frozen=True)
class Triplet:
    """``max(0, |q - p|^2 - |q - n|^2 + margin)`` of every positive p and one negative n for it.

    Between unit vectors a squared distance is ``2 - 2 cosine``. The negative is the semi-hard one:
    the nearest of those farther than the positive. Where none is farther, it is the farthest of
    all, so that training never starts from the hardest ones, which can pull every vector together.
    Without any negative the term is 0. A query's terms count by the shares of its positives.

    Attributes:
        margin: Wanted gap between the squared distances, above 0.

    Source: FaceNet (arXiv 1503.03832), section 3; the farthest where none is semi-hard
        as in TensorFlow Addons' ``TripletSemiHardLoss``.
    """

    margin: float

    def __call__(self, scores: Scores, target: Target) -> Tensor:
        """Loss of each asking query, float32 ``[Q']``.

        Args:
            scores: Cosines of the asking queries: ``scores.temperature`` is 1.
            target: Their positives.
        """
        positive = scores.values[target.rows, target.columns]
        if not len(positive):
            return row_sums(positive, target)
        chosen = semi_hard(scores.values, target)
        negative = scores.values[target.rows, chosen.columns]
        hinge = F.relu(2.0 * (negative - positive) + self.margin)
        return row_sums(target.share * hinge.where(chosen.exists, 0.0), target)


class Negatives(NamedTuple):
    """The negative of each positive.

    Attributes:
        columns: Its candidate, int64 ``[P]``; anything where there is none.
        exists: bool ``[P]``.
    """

    columns: Tensor
    exists: Tensor


@torch.no_grad()
def semi_hard(cosines: Tensor, target: Target) -> Negatives:
    """The nearest negative that is farther than each positive, else the farthest of all.

    Args:
        cosines: float ``[Q', C]``, -inf at ignored entries; C at least 1.
        target: The asking queries' positives.
    """
    nothing = cosines.new_tensor(float("-inf"))
    negatives = cosines.index_put((target.rows, target.columns), nothing)
    farthest = negatives.masked_fill(negatives == nothing, float("inf")).min(dim=1)
    size = max(1, _CELLS // cosines.shape[1])
    columns = []
    for rows, own in zip(target.rows.split(size), target.columns.split(size), strict=True):
        near = negatives[rows]
        is_farther = near < cosines[rows, own][:, None]
        best = near.masked_fill(~is_farther, float("-inf")).max(dim=1)
        columns.append(best.indices.where(best.values > nothing, farthest.indices[rows]))
    return Negatives(torch.cat(columns), farthest.values[target.rows] < float("inf"))
