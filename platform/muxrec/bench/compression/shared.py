"""Trainings that several contestants are served from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from muxrec.bench.compression.contestants import contestant
from muxrec.bench.compression.rates import Rate
from muxrec.bench.compression.sweep import Cell

Training = TypeVar("Training")


class SharedTrainings(Generic[Training]):
    """Finished trainings of tables without a size to set: one for all formats they are served in.

    They are kept in memory. A sweep that was stopped between two formats trains once more, and
    comes to the same numbers.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, Rate], Training] = {}

    def __call__(self, cell: Cell, train: Callable[[], Training]) -> Training:
        """The finished training of ``cell``; ``train`` is called where it is not there."""
        entrant = contestant(cell.method)
        if entrant.has_budget:
            return train()
        key = (entrant.trained.name, cell.seed, cell.rate)
        if key not in self._kept:
            self._kept[key] = train()
        return self._kept[key]
