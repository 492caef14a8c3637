"""The additive angular margin on positives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from muxrec.losses.engine import Scores, Target
from muxrec.losses.infonce import cross_entropy

_END = 1e-6
"""How near to -1 and 1 a cosine may come before its margin is held: 0.0014 radians."""


@dataclass(frozen=True)
class AngularMargin:
    """Cross-entropy after every positive's angle to its query was widened by ``margin``.

    ``cos(angle)`` of a positive becomes ``cos(angle + margin)``, before the division by the
    temperature. Past ``pi - margin``, where that would rise again, it goes on falling as
    ``cos(angle) - margin * sin(margin)``. Candidates stand where the paper has class proxies.

    Attributes:
        margin: In radians, at least 0; 0 is the cross-entropy.

    Source: ArcFace (arXiv 1801.07698), equation 3; the part past the bound from its released code.
    """

    margin: float

    def __call__(self, scores: Scores, target: Target) -> Tensor:
        """Loss of each asking query, float32 ``[Q']``.

        Args:
            scores: Scores of the asking queries; their cosines are between unit vectors.
            target: Their positives.
        """
        places = (target.rows, target.columns)
        taken = widening(scores.cosines(*places), self.margin) / scores.temperature
        values = scores.values.index_put(places, scores.values[places] - taken)
        return cross_entropy(scores._replace(values=values), target)


def widening(cosine: Tensor, margin: float) -> Tensor:
    """What the margin takes from each cosine, at least 0, shaped as ``cosine``.

    The slope of ``cos(acos(x) + margin)`` is infinite at both ends. There the amount is held at its
    value just before the end: the cosine itself keeps its gradient, which is what identical vectors
    are trained by.

    Args:
        cosine: float ``[P]``; rounding may have put it just outside of [-1, 1].
        margin: In radians, within [0, pi].
    """
    inner = cosine.clamp(-1.0 + _END, 1.0 - _END)
    sine = (1.0 - inner.square()).sqrt()
    widened = inner * math.cos(margin) - sine * math.sin(margin)
    past = inner - margin * math.sin(margin)
    return inner - widened.where(inner > -math.cos(margin), past)
