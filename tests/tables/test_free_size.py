"""The search for the value that fills a budget finds what trying all values finds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.free_size import Measure, Range, largest_within

HIGH = 3000
WHOLE = Range(1, HIGH, is_whole=True)


def brute_force(measure: Measure, budget: int) -> int | None:
    sizes = [measure(value) for value in range(1, HIGH + 1)]
    return max((size for size in sizes if size <= budget), default=None)


def pair_of_tables(ids: int) -> Measure:
    """Rows of a quotient and a remainder table; ids that would not shrink keep their own rows."""
    return lambda value: min(ids, math.ceil(ids / value) + int(value))


@given(st.integers(1, 50), st.integers(0, 500), st.integers(1, 200_000))
def test_rising_bytes_are_filled_as_far_as_trying_all_values_would(
    slope: int, offset: int, budget: int
) -> None:
    found = largest_within(lambda value: slope * int(value) + offset, budget, WHOLE)
    best = brute_force(lambda value: slope * int(value) + offset, budget)
    assert (found.size if found.value is not None else None) == best


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_falling_bytes_are_filled_as_far_as_trying_all_values_would(size: int, budget: int) -> None:
    found = largest_within(lambda value: size // int(value), budget, WHOLE)
    best = brute_force(lambda value: size // int(value), budget)
    assert (found.size if found.value is not None else None) == best


@given(st.integers(2, 2500), st.floats(0.01, 1.2))
def test_bytes_that_fall_and_rise_are_filled_within_a_row_or_two(ids: int, share: float) -> None:
    measure, budget = pair_of_tables(ids), int(ids * share)
    found = largest_within(measure, budget, WHOLE)
    best = brute_force(measure, budget)
    assert (found.value is None) == (best is None)
    if best is not None:
        # Rounding up moves a pair of tables by a row; a plateau may hide one of them.
        assert best - 2 <= found.size <= budget
    else:
        assert found.size == min(measure(value) for value in range(1, HIGH + 1))


def test_a_real_number_is_found_to_the_last_byte() -> None:
    span = Range(0.0, 1.0, is_whole=False)
    found = largest_within(lambda value: int(100_000 * value), 12_345, span)
    assert found.size == 12_345
    falling = largest_within(lambda value: int(100_000 * (1 - value)), 12_345, span)
    assert falling.size == 12_345


def test_of_equal_bytes_the_smallest_value_is_taken() -> None:
    found = largest_within(lambda value: min(int(value), 16), 10**6, Range(1, 100, is_whole=True))
    assert (found.value, found.size) == (16, 16)


@pytest.mark.parametrize("high", [10**9, 255])
def test_bytes_that_leave_the_budget_for_good_are_not_followed(high: int) -> None:
    largest = 0.0

    def measure(value: float) -> int:
        nonlocal largest
        largest = max(largest, value)
        return int(value * value)

    found = largest_within(measure, 10_000, Range(1, high, is_whole=True))
    assert found.value == 100
    assert largest <= 256
