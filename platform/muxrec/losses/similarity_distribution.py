"""Similarity distribution matching: the softmax of the scores against the positives' shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from muxrec.losses.engine import Scores, Target, row_sums


@dataclass(frozen=True)
class SimilarityDistribution:
    """``KL(p || q) = sum of p (log p - log(q + epsilon))``, p the softmax and q the shares.

    This direction charges ``log(1 / epsilon)``, 18.4 for 1e-8, for mass on a negative, so its
    scale is far above the cross-entropy's. Both published directions are rows here: a relation of
    pairs asks from either side, and the mean is over all of them.

    Attributes:
        epsilon: Added to every share, above 0.

    Source: Cross-Modal Implicit Relation Reasoning and Aligning (arXiv 2303.12501), its similarity
        distribution matching, with the epsilon of the released code.
    """

    epsilon: float

    def __call__(self, scores: Scores, target: Target) -> Tensor:
        """Divergence of each asking query, float32 ``[Q']``.

        Args:
            scores: Scores of the asking queries.
            target: Their positives.
        """
        log_p = scores.values.log_softmax(dim=1)
        p = log_p.exp()
        # At ignored entries p log p is 0 times -inf.
        negative_entropy = (p * log_p.masked_fill(target.ignored, 0.0)).sum(dim=1)
        # log(q + epsilon) is log(epsilon) everywhere but at the positives: no second matrix.
        floor = math.log(self.epsilon)
        above = (target.share.to(p.dtype) + self.epsilon).log() - floor
        return negative_entropy - floor - row_sums(p[target.rows, target.columns] * above, target)
