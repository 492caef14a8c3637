"""``alpt``: a table of integers that learns the step size of every row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from muxrec.tables.integer import IntegerTable


class AlptTable(IntegerTable):
    """Codes of a byte and a learned step size per row.

    A row takes its step as floats; its step size takes a step of gradient descent, with
    the gradient of rounding to the nearest code (LSQ); then the row is rounded at random to codes
    of the new step size. LSQ's gradient of one number ``w`` by the step size ``s``, for the
    gradient ``g`` by the rounded number, is ``g * (round(w / s) - w / s)``, or ``g * top`` with the
    sign of ``w`` beyond the codes; a row's sum is multiplied by
    ``1 / sqrt(batch * d * (2 ** (bits - 1) - 1))``.

    The paper runs the model forward and backward a second time, on the updated and rounded rows,
    to get that ``g``. Here ``g`` is the gradient of the one backward there is, by the rows before
    their update: half the work, and a step old for rows that move by many codes. A step size
    changes by at most a factor of two in one update and its codes are symmetric (the paper's go
    down to ``-2 ** (bits - 1)``).

    Source: Li et al., Adaptive Low-Precision Training for Embeddings in Click-Through Rate
    Prediction, AAAI 2023; Esser et al., Learned Step Size Quantization, ICLR 2020.

    Attributes:
        scale: Step sizes, float32 ``[R]``.
    """

    def _first_scale(self, rows: Tensor) -> Tensor:
        """The declared step size, or a larger one where a row would not fit into its codes."""
        low, high = rows.aminmax(dim=1)
        largest = torch.maximum(high, -low)
        return (largest / self.top).clamp_(min=self.group.table.scale)

    def _scale_of(self, rows: Tensor) -> Tensor:
        """Step size of each of ``rows``, ``[U, 1]``."""
        return self.scale[rows][:, None]

    def _change(self, rows: Tensor, gradient: Tensor, bags: int, lr: float) -> None:
        steps, old = self._steps(rows, gradient, lr), self._scale_of(rows)
        codes = self.codes[rows].to(old.dtype)
        factor = 1 / math.sqrt(bags * codes.shape[1] * self.top)
        slopes = (gradient * rounding_slope(codes + steps / old, self.top)).sum(dim=1, keepdim=True)
        new = old - self.group.table.scale_lr * factor * slopes
        new = torch.maximum(torch.minimum(new, 2 * old), old / 2)
        self.scale[rows] = new[:, 0]
        # The same numbers in codes of the new size.
        self._move(rows, (codes * (old - new) + steps) / new)


def rounding_slope(numbers: Tensor, top: int) -> Tensor:
    """Derivative of a rounded number by the step size, for numbers in units of that size.

    Args:
        numbers: Any shape.
        top: Largest code; numbers beyond it are rounded to it.
    """
    inside = numbers.round() - numbers
    return torch.where(numbers.abs() < top, inside, numbers.clamp(-top, top))
