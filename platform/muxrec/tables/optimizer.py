"""Rules with one number of state per row, on sparse gradients.

Row-wise Adagrad is fbgemm's ``EXACT_ROWWISE_ADAGRAD``: for a row with summed gradient ``g``,
``m += sum(g * g) / d`` and ``row -= lr * g / (sqrt(m) + eps)``, where ``d`` is the row's width in
memory (:func:`aligned_width`). "Exact" means that the gradients of one row are summed over the
batch before they are squared. Row-wise RMSProp takes a fading mean of the squares instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

DECAY = 0.99
EPS = 1e-8
"""fbgemm's default; both engines are built with it."""
ALIGNMENT = 4
"""fbgemm's rows are a multiple of four numbers wide."""


class TableOptimizer(Protocol):
    """What the training loop holds; engines that update inside backward do nothing in ``step``."""

    def step(self) -> None:
        """Apply and clear the gradients."""
        ...

    def zero_grad(self) -> None:
        """Drop the gradients."""
        ...

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next update on."""
        ...


def aligned_width(width: int) -> int:
    """Numbers that a row of ``width`` takes in fbgemm's memory: a multiple of ``ALIGNMENT``."""
    return -(-width // ALIGNMENT) * ALIGNMENT


def update_rows(
    table: Tensor,
    momentum: Tensor,
    rows: Tensor,
    gradient: Tensor,
    *,
    lr: float,
    squares: Tensor | None = None,
    rule: str = "adagrad",
    updates: int = 0,
) -> None:
    """One row-wise update in place.

    Args:
        table: ``[R, d]``.
        momentum: ``[R]``.
        rows: Distinct rows, int64 ``[U]``.
        gradient: Summed gradient of each row, ``[U, d]``.
        lr: Learning rate.
        squares: Mean square of each row's gradient, float32 ``[U]``; None to take ``gradient``'s,
            which is right where it holds whole rows.
        rule: A key of :data:`RULES`.
        updates: Number of this update of the table, from 1; ``rmsprop`` needs it.
    """
    if rows.numel() == 0:
        return
    steps = row_steps(momentum, rows, gradient, lr=lr, squares=squares, rule=rule, updates=updates)
    table.index_add_(0, rows, steps)


def row_steps(
    momentum: Tensor,
    rows: Tensor,
    gradient: Tensor,
    *,
    lr: float,
    squares: Tensor | None = None,
    rule: str = "adagrad",
    updates: int = 0,
) -> Tensor:
    """What an update adds to each of ``rows``, ``[U, d]``; their momentum is brought forward."""
    found = mean_squares(gradient) if squares is None else squares
    sums, correction = RULES[rule](momentum[rows], found, updates)
    momentum[rows] = sums
    return gradient * (-lr / ((sums / correction).sqrt() + EPS))[:, None]


def _accumulate(momentum: Tensor, squares: Tensor, updates: int) -> tuple[Tensor, float]:
    """Row-wise Adagrad: the sum of all mean squares."""
    del updates
    return momentum + squares, 1.0


def _forget(momentum: Tensor, squares: Tensor, updates: int) -> tuple[Tensor, float]:
    """Row-wise RMSProp, corrected for its start at zero by the table's number of updates.

    A row that is first read late has little behind it and takes larger steps than the others, which
    is what rare rows of small shared tables gain by.
    """
    return DECAY * momentum + (1 - DECAY) * squares, 1 - DECAY**updates


RULES: dict[str, Callable[[Tensor, Tensor, int], tuple[Tensor, float]]] = {
    "adagrad": _accumulate,
    "rmsprop": _forget,
}
"""``(momentum of rows, mean squares of their gradients, updates so far)`` to the new momentum,
float32 ``[U]``, and what it is divided by."""


def mean_squares(gradient: Tensor, *, width: int = 0) -> Tensor:
    """Sum of squares of each gradient, ``[U, d]``, over a row's numbers in memory: ``[U]``.

    Args:
        gradient: Gradients of rows, or of some columns of them.
        width: Numbers of a whole row; 0 for d.
    """
    return gradient.square().sum(dim=1) / aligned_width(width or gradient.shape[1])
