"""Row-wise Adagrad, the formula of fbgemm's ``EXACT_ROWWISE_ADAGRAD``, on sparse gradients.

For a row with summed gradient ``g``: ``m += sum(g * g) / d`` and
``row -= lr * g / (sqrt(m) + eps)``, where ``d`` is the row's width in memory
(:func:`aligned_width`). "Exact" means that the gradients of one row are summed over the batch
before they are squared.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

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
) -> None:
    """One row-wise Adagrad update in place.

    Args:
        table: ``[R, d]``.
        momentum: ``[R]``.
        rows: Distinct rows, int64 ``[U]``.
        gradient: Summed gradient of each row, ``[U, d]``.
        lr: Learning rate.
        squares: Mean square of each row's gradient, float32 ``[U]``; None to take ``gradient``'s,
            which is right where it holds whole rows.
    """
    if rows.numel() == 0:
        return
    table.index_add_(0, rows, adagrad_steps(momentum, rows, gradient, lr=lr, squares=squares))


def adagrad_steps(
    momentum: Tensor, rows: Tensor, gradient: Tensor, *, lr: float, squares: Tensor | None = None
) -> Tensor:
    """What an update adds to each of ``rows``, ``[U, d]``; their momentum is brought forward."""
    sums = momentum[rows] + (mean_squares(gradient) if squares is None else squares)
    momentum[rows] = sums
    return gradient * (-lr / (sums.sqrt() + EPS))[:, None]


def mean_squares(gradient: Tensor, *, width: int = 0) -> Tensor:
    """Sum of squares of each gradient, ``[U, d]``, over a row's numbers in memory: ``[U]``.

    Args:
        gradient: Gradients of rows, or of some columns of them.
        width: Numbers of a whole row; 0 for d.
    """
    return gradient.square().sum(dim=1) / aligned_width(width or gradient.shape[1])
