"""The settings of the tables' optimiser that every method is tuned over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from muxrec.errors import RecipeError
from muxrec.spec.features import TableOptimizerName


@dataclass(frozen=True)
class Rate:
    """How the rows are updated.

    Attributes:
        optimizer: Rule of the rows' updates.
        lr: Learning rate.
    """

    optimizer: TableOptimizerName
    lr: float

    def __str__(self) -> str:
        return f"{self.optimizer}:{self.lr:g}"


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Rates of ``adagrad:0.1,rmsprop:0.003``, each once, in the given order.

    Raises:
        RecipeError: The text is none of that.
    """
    return tuple(dict.fromkeys(_rate(part.strip()) for part in text.split(",")))


def joined(rates: Sequence[Rate]) -> str:
    """Rates as people read them."""
    return ", ".join(str(rate) for rate in rates)


def _rate(text: str) -> Rate:
    name, _, number = text.partition(":")
    known = get_args(TableOptimizerName)
    try:
        lr = float(number)
    except ValueError:
        lr = 0.0
    if name not in known or not 0 < lr < float("inf"):
        raise RecipeError(
            f"--tune: expected an optimiser ({', '.join(known)}), a colon and a learning rate "
            f"above 0, got {text!r}"
        )
    return Rate(cast(TableOptimizerName, name), lr)


RATES = parse_rates("adagrad:0.1,rmsprop:0.01,rmsprop:0.03")
