"""The pairwise sigmoid loss: every pair of query and candidate is a yes-no question of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from muxrec.losses.engine import Scores, Target, row_sums


class Sigmoid(nn.Module):
    """Sum over a query's candidates of the logistic loss of "is it a positive?".

    ``sum over positives of w softplus(-z) + sum over negatives of softplus(z)`` with
    ``z = score + bias``. It is the sum over the entries that are not ignored, as published, not
    their mean: the thousands of easy negatives would leave one positive no weight. ``w`` is the
    positive's weight divided by the mean weight of its row, so equal weights give 1 each.

    Args:
        bias: Start value; far below 0, since nearly all pairs are negatives.
        learn_bias: Whether the bias is trained.

    Source: Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343), algorithm 1.
    """

    def __init__(self, *, bias: float, learn_bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=bool(learn_bias))

    def forward(self, scores: Scores, target: Target) -> Tensor:
        """Loss of each asking query, float32 ``[Q']``.

        Args:
            scores: Scores of the asking queries.
            target: Their positives.
        """
        logits = scores.values + self.bias
        places = (target.rows, target.columns)
        # softplus(-inf) is 0: ignored entries and positives are no negatives.
        negatives = logits.index_put(places, logits.new_tensor(float("-inf")))
        count = row_sums(torch.ones_like(target.share), target)
        weight = target.share * count[target.rows]
        yes = row_sums(weight * F.softplus(-logits[places]), target)
        return yes + F.softplus(negatives).sum(dim=1)
