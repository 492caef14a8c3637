"""How a row is updated: the optimiser, its state, and the random bits of its rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("sgd", "adagrad", "rmsprop", "adam")
ROUNDINGS = ("stochastic", "nearest")
ALIGNMENT = 4
"""Row-wise rules average squares over a row's numbers in fbgemm's memory: a multiple of four."""

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True)
class Rule:
    """An optimiser of rows, for the summed gradient ``g`` of a row ``w`` of d numbers.

    ``sgd``: ``w -= lr * g``. ``adagrad``, one number per row: ``m += mean(g * g)``,
    ``w -= lr * g / (sqrt(m) + eps)``, the mean over d rounded up to a multiple of four.
    ``rmsprop``, likewise: ``m = decay * m + (1 - decay) * mean(g * g)``, divided by
    ``1 - decay ** step`` before the root. ``adam``, per number: ``m = b1 * m + (1 - b1) * g``,
    ``v = b2 * v + (1 - b2) * g * g``, ``w -= lr * m / (1 - b1 ** step) / (sqrt(v / (1 - b2 **
    step)) + eps)``. Rows without a lookup keep their state: Adam is lazy.

    Attributes:
        kind: One of ``KINDS``.
        lr: Learning rate, not negative.
        eps: Added to the root, not negative.
        betas: Adam's decays, each in ``[0, 1)``.
        decay: RMSProp's, in ``[0, 1)``.
        step: Number of this update of the table, from 1.
        rounding: One of ``ROUNDINGS``, for tables of 16 bits.
        seed: Seed of stochastic rounding, any integer.

    Raises:
        ValueError: A value is not as described.

    Source: fbgemm_gpu's ``EXACT_ROWWISE_ADAGRAD`` and ``ADAM`` (optimizer code generation).
    """

    kind: str
    lr: float
    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.99
    step: int = 1
    rounding: str = "stochastic"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(
                f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}"
            )
        if not self.lr >= 0 or not self.eps >= 0:
            raise ValueError(f"lr and eps must not be negative, got {self.lr}, {self.eps}")
        if not all(0 <= decay < 1 for decay in (*self.betas, self.decay)):
            raise ValueError(f"decays must lie in [0, 1), got {self.betas} and {self.decay}")
        if self.step < 1:
            raise ValueError(f"step must be counted from 1, got {self.step}")


class RowState(NamedTuple):
    """State of a rule for a table ``[R, d]``, updated in place.

    Attributes:
        first: Row-wise rules: their momentum, float32 ``[R]``. Adam: mean gradient, float32
            ``[R, d]``. SGD: None.
        second: Adam: mean squared gradient, float32 ``[R, d]``. Others: None.
    """

    first: Tensor | None = None
    second: Tensor | None = None


def state_shapes(kind: str, table: Tensor) -> tuple[tuple[int, ...] | None, ...]:
    """Shapes of ``first`` and ``second`` under a rule; None where it has no such state."""
    if kind == "sgd":
        return None, None
    return (table.shape, table.shape) if kind == "adam" else ((table.shape[0],), None)


def new_state(kind: str, table: Tensor) -> RowState:
    """The state that a table starts with: zeros.

    Args:
        kind: One of ``KINDS``.
        table: Rows ``[R, d]``.
    """
    return RowState(
        *(
            None if shape is None else torch.zeros(shape, device=table.device)
            for shape in state_shapes(kind, table)
        )
    )


def rounding_keys(rule: Rule) -> tuple[int, int]:
    """Two 32-bit words, as signed numbers, that differ from step to step and seed to seed.

    Source: splitmix64 (Steele, Lea, Flood 2014), over the seed and then the step.
    """
    mixed = _mix64(_mix64(rule.seed) + rule.step)
    return _signed(mixed & 0xFFFFFFFF), _signed(mixed >> 32)


def _mix64(value: int) -> int:
    value = (value + _GOLDEN) % 2**64
    value = (value ^ value >> 30) * _MIX[0] % 2**64
    value = (value ^ value >> 27) * _MIX[1] % 2**64
    return value ^ value >> 31


def _signed(word: int) -> int:
    """A word above 2**31 would be a 64-bit argument, and the kernel be compiled twice."""
    return word - 2**32 if word >= 2**31 else word
