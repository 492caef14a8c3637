"""The contrastive engine: scores, relation, divergence.

Every contrastive method is a choice of these three. Negatives of any origin add columns; masks,
softened labels and multi-positives edit the relation; the divergence compares one row of scores
with one row of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """A relation made ready for scores: asking queries only, positives as a list.

    The few positives are listed because every pass over a dense ``[Q, C]`` matrix costs as much as
    the softmax itself, and several scores (prefixes of the vector) share one target.

    Attributes:
        asking: Which queries of the relation have a positive, int64 ``[Q']``.
        ignored: bool ``[Q', C]``.
        rows: Row of each positive, int64 ``[P]``.
        columns: Its column, int64 ``[P]``.
        share: Its share of its row's weight, float32 ``[P]``; the shares of a row add up to 1.
    """

    asking: Tensor
    ignored: Tensor
    rows: Tensor
    columns: Tensor
    share: Tensor


class Scores(NamedTuple):
    """Scores of the asking queries, and how they were made from cosines.

    Attributes:
        values: ``cosine / temperature - correction[candidate]``, float32 or float64 ``[Q', C]``;
            -inf at ignored entries.
        temperature: What the cosines were divided by, a scalar; 1 for plain cosines.
        correction: What was subtracted from each candidate's scores, float32 ``[C]``; None for
            nothing.
    """

    values: Tensor
    temperature: Tensor | float
    correction: Tensor | None

    def cosines(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Cosines of the entries at ``rows`` and ``columns``, int64 ``[P]`` each.

        They must not be ignored ones: -inf times the temperature has no finite gradient.
        """
        scaled = self.values[rows, columns]
        if self.correction is not None:
            scaled = scaled + self.correction[columns]
        return scaled * self.temperature


Divergence = Callable[[Scores, Target], Tensor]
"""``(scores, target) -> loss per asking query [Q']``; one that learns is an ``nn.Module``."""


def target_of(weight: Tensor, ignored: Tensor) -> Target:
    """The target of a relation.

    Queries without a positive are taken out of the computation, not multiplied by 0: a row with
    every entry ignored has no finite softmax.

    Args:
        weight: Positive weights, float32 ``[Q, C]``, at least 0; 0 marks a negative.
        ignored: bool ``[Q, C]``; a positive that is ignored is none.
    """
    weight = weight.masked_fill(ignored, 0.0)
    total = weight.sum(dim=1)
    asking = total.nonzero()[:, 0]
    if len(asking) < len(weight):
        weight, ignored, total = weight[asking], ignored[asking], total[asking]
    rows, columns = weight.nonzero(as_tuple=True)
    return Target(asking, ignored, rows, columns, weight[rows, columns] / total[rows])


def contrast(
    scores: Tensor,
    target: Target,
    divergence: Divergence,
    *,
    temperature: Tensor | float = 1.0,
    correction: Tensor | None = None,
) -> Tensor:
    """Mean divergence over the asking queries, a float32 scalar (float64 for float64 scores).

    Ignored entries become minus infinity before the softmax (scaling them by 0 would leave them in
    the sum with weight exp(0)); nothing they hold, NaN included, reaches the loss or its gradient.
    Without any asking query the loss is 0, still connected to ``scores`` with a zero gradient.

    Args:
        scores: float ``[Q', C]``, rows of the asking queries; 16-bit ones are widened first.
        target: From ``target_of``.
        divergence: How a row of scores is compared with its positives.
        temperature: What the scores' cosines were divided by, for divergences that want cosines.
        correction: What was subtracted from each candidate's scores, float32 ``[C]``.
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    values = exact.masked_fill(target.ignored, float("-inf"))
    per_query = divergence(Scores(values, temperature, correction), target)
    return per_query.sum() / max(1, per_query.numel())


def row_sums(values: Tensor, target: Target) -> Tensor:
    """Sums of one value per positive over each row, float32 ``[Q']``."""
    sums = torch.zeros(len(target.asking), dtype=values.dtype, device=values.device)
    return sums.index_add(0, target.rows, values)
