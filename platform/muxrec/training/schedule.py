"""Learning rate over the steps."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, total: int, warmup: float) -> float:
    """Factor on the learning rate at ``step``, in (0, 1]: linear rise, then half a cosine down.

    Args:
        step: Step from 0.
        total: Steps of the whole training, at least 1.
        warmup: Share of the steps that rise, in ``[0, 1]``.
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(1, total - rising)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
