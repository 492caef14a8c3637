"""What is fixed per data set, the same for every method: width, model and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from muxrec.bench.compression.model import Head
from muxrec.bench.compression.schedule import Schedule


@dataclass(frozen=True)
class ClickSettings:
    """Everything about a click training but the method, its budget, its learning rate, the seed.

    Attributes:
        width: Numbers of every feature's vector, the ``d`` of a full table.
        head: Network over the vectors.
        schedule: How it is trained.
        init: Rows start uniform in ``[-init, init]``.
    """

    width: int
    head: Head
    schedule: Schedule
    init: float = 0.05


CLICK_SETTINGS: dict[str, ClickSettings] = {
    "movielens-100k": ClickSettings(
        16, "mlp", Schedule(1_024, epochs=15, patience=2, dense_lr=1e-3, weight_decay=0.0)
    ),
    "movielens-1m": ClickSettings(
        16, "dcn", Schedule(2_048, epochs=14, patience=2, dense_lr=2e-3, weight_decay=0.0)
    ),
}
