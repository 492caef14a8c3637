"""The value of one free number whose bytes come closest to a budget from below.

Bytes mostly rise with the number or fall with it, but not always: the two tables of a
quotient-remainder pair are smallest near the square root of the ids, and a feature that would not
shrink keeps its full table. So the range is walked in coarse steps, every change between fitting
and not fitting is narrowed down, and whole numbers around the best one are tried too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

Measure = Callable[[float], int]

FEW = 256
"""Ranges of so many whole numbers are tried one by one."""
REAL_STEPS = 32
HALVINGS = 40
NEIGHBOURS = 8


@dataclass(frozen=True)
class Range:
    """Values that may be tried.

    Attributes:
        low: The smallest.
        high: The largest.
        is_whole: Whether only integers count.
    """

    low: float
    high: float
    is_whole: bool


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        value: The value; None where no value tried is within the budget.
        size: Its bytes, or the fewest bytes of any value tried.
    """

    value: float | None
    size: int


def largest_within(measure: Measure, budget: int, span: Range) -> Found:
    """The value with the most bytes that are not above ``budget``; of equals the smallest.

    Args:
        measure: Bytes of a value; called a few dozen times.
        budget: Bytes allowed.
        span: Values allowed.
    """
    tried = _walked(measure, budget, span)
    if not _fitting(tried, budget):
        _sink(measure, tried, span)
    for left, right in list(pairwise(sorted(tried))):
        if (tried[left] <= budget) != (tried[right] <= budget):
            _narrow(measure, budget, tried, span, (left, right))
    if span.is_whole:
        _try_neighbours(measure, budget, tried, span)
    fitting = _fitting(tried, budget)
    if not fitting:
        return Found(None, min(tried.values()))
    value = max(sorted(fitting), key=fitting.__getitem__)
    return Found(value, fitting[value])


def _fitting(tried: dict[float, int], budget: int) -> dict[float, int]:
    return {value: size for value, size in tried.items() if size <= budget}


def _walked(measure: Measure, budget: int, span: Range) -> dict[float, int]:
    """Coarse steps upwards, until the bytes have clearly left the budget for good.

    Stopping matters: the largest hidden layer that an option allows does not fit into memory.
    """
    tried: dict[float, int] = {}
    sizes: list[int] = []
    for value in _steps(span):
        tried[value] = size = measure(value)
        sizes.append(size)
        rises = [a < b for a, b in pairwise(sizes[-3:])]
        was_within = len(sizes) > 1 and sizes[-2] <= budget
        if size > budget and rises and rises[-1] and (was_within or rises == [True, True]):
            break
    return tried


def _steps(span: Range) -> list[float]:
    if not span.is_whole:
        width = span.high - span.low
        return [span.low + width * at / REAL_STEPS for at in range(REAL_STEPS + 1)]
    low, high = int(span.low), int(span.high)
    if high - low < FEW:
        return list(range(low, high + 1))
    doubled = [low]
    while doubled[-1] < high:
        doubled.append(min(high, max(1, 2 * doubled[-1])))
    return list(doubled)


def _sink(measure: Measure, tried: dict[float, int], span: Range) -> None:
    """Try values ever closer around the fewest bytes."""
    for _ in range(HALVINGS):
        values = sorted(tried)
        at = values.index(min(values, key=tried.__getitem__))
        around = [*values[max(0, at - 1) : at], values[at], *values[at + 1 : at + 2]]
        new = [_middle(left, right, span) for left, right in pairwise(around)]
        new = [value for value in new if value not in tried]
        if not new:
            return
        tried.update({value: measure(value) for value in new})


def _narrow(
    measure: Measure,
    budget: int,
    tried: dict[float, int],
    span: Range,
    between: tuple[float, float],
) -> None:
    """Halve the interval of two values of which one fits."""
    left, right = between
    for _ in range(HALVINGS):
        middle = _middle(left, right, span)
        if middle in (left, right):
            return
        tried[middle] = measure(middle)
        if (tried[middle] <= budget) == (tried[left] <= budget):
            left = middle
        else:
            right = middle


def _middle(left: float, right: float, span: Range) -> float:
    return int(left + right) // 2 if span.is_whole else (left + right) / 2


def _try_neighbours(measure: Measure, budget: int, tried: dict[float, int], span: Range) -> None:
    """Rounding up makes bytes rise and fall by a row or two: look around the best value."""
    fitting = _fitting(tried, budget)
    best = max(fitting or tried, key=lambda value: tried[value] if fitting else -tried[value])
    for value in range(int(best) - NEIGHBOURS, int(best) + NEIGHBOURS + 1):
        if span.low <= value <= span.high and value not in tried:
            tried[value] = measure(value)
