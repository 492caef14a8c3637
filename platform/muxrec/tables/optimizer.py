"""Row-wise Adagrad, the formula of fbgemm's ``EXACT_ROWWISE_ADAGRAD``, on sparse gradients.

For a row with summed gradient ``g`` of width ``d``: ``m += sum(g * g) / d`` and
``row -= lr * g / (sqrt(m) + eps)``. "Exact" means that the gradients of one row are summed over the
batch before they are squared.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

EPS = 1e-8
"""fbgemm's default; both engines are built with it."""


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


class RowWiseAdagrad:
    """Row-wise Adagrad over tables with sparse gradients.

    Args:
        tables: Parameters ``[R, d]`` whose ``grad`` is sparse or None.
        momenta: Sums of mean squared gradients ``[R]``, one per table, updated in place.
        lr: Learning rate.
    """

    def __init__(self, tables: list[Tensor], momenta: list[Tensor], *, lr: float) -> None:
        self.tables, self.momenta, self.lr = tables, momenta, lr

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that have a gradient and clear it.

        Raises:
            TypeError: A gradient is dense: a table of full size was built somewhere.
        """
        for table, momentum in zip(self.tables, self.momenta, strict=True):
            if table.grad is None:
                continue
            if not table.grad.is_sparse:
                raise TypeError("a table got a dense gradient: look rows up through the tables")
            gradient = table.grad.coalesce()
            update_rows(table, momentum, gradient.indices()[0], gradient.values(), lr=self.lr)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for table in self.tables:
            table.grad = None

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next step on."""
        self.lr = lr


def update_rows(
    table: Tensor, momentum: Tensor, rows: Tensor, gradient: Tensor, *, lr: float
) -> None:
    """One row-wise Adagrad update in place.

    Args:
        table: ``[R, d]``.
        momentum: ``[R]``.
        rows: Distinct rows, int64 ``[U]``.
        gradient: Summed gradient of each row, ``[U, d]``.
        lr: Learning rate.
    """
    if rows.numel() == 0:
        return
    sums = momentum[rows] + gradient.square().sum(dim=1) / gradient.shape[1]
    momentum[rows] = sums
    factors = -lr / (sums.sqrt() + EPS)
    table.index_add_(0, rows, gradient * factors[:, None])
