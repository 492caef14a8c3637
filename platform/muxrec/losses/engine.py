"""The contrastive engine: scores, relation, divergence.

Every contrastive method is a choice of these three. Negatives of any origin add columns; masks,
softened labels and multi-positives edit the relation; the divergence compares one row of scores
with one row of weights.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]
"""``(scores [Q, C] with -inf at ignored entries, weight [Q, C]) -> loss per query [Q]``. Every row
it is given has at least one positive; entries at -inf have weight 0."""


def contrast(scores: Tensor, weight: Tensor, ignored: Tensor, divergence: Divergence) -> Tensor:
    """Mean divergence over the queries that have a positive, a float32 scalar.

    Ignored entries become minus infinity before the softmax (scaling them by 0 would leave them in
    the sum with weight exp(0)); nothing they hold, NaN included, reaches the loss or its gradient.
    Queries without a positive are taken out of the computation, not multiplied by 0: a row with
    every entry ignored has no finite softmax. Without any query left the loss is 0, still connected
    to ``scores`` with a zero gradient.

    Args:
        scores: float ``[Q, C]``.
        weight: Positive weights, float32 ``[Q, C]``, at least 0; 0 marks a negative.
        ignored: bool ``[Q, C]``.
        divergence: How a row of scores is compared with its weights.
    """
    weight = weight.masked_fill(ignored, 0.0)
    asking = weight.sum(dim=1) > 0
    rows = scores.float().masked_fill(ignored, float("-inf"))[asking]
    per_query = divergence(rows, weight[asking])
    return per_query.sum() / max(1, per_query.numel())
