"""``mde``: rows as narrow as a feature has many ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.methods.mde import MixedDimension, mixed_dim


def test_widths_are_powers_of_two_of_the_law_and_the_smallest_keeps_all() -> None:
    sizes = (100, 400, 1_600, 6_400, 10**9)
    assert [mixed_dim(size, 100, 16, 0.5) for size in sizes] == [16, 8, 4, 2, 1]
    assert [mixed_dim(size, 100, 16, 0.0) for size in sizes] == [16] * 5


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 500), st.floats(0, 8))
def test_a_width_is_the_whole_or_a_power_of_two_below(
    size: int, least: int, width: int, alpha: float
) -> None:
    dim = mixed_dim(max(size, least), least, width, alpha)
    assert 1 <= dim <= width
    assert dim == width or dim & (dim - 1) == 0
    assert mixed_dim(least, least, width, alpha) == width
    assert mixed_dim(max(size, least) * 2, least, width, alpha) <= dim


def test_only_features_with_narrow_rows_have_a_map(planted) -> None:
    lowered = MixedDimension().lower(
        planted("mde", {"alpha": 0.5}, sizes=(960, 240, 60)).declared()
    )
    assert [(table.rows, table.width) for table in lowered.tables] == [(960, 2), (240, 4), (60, 8)]
    assert list(lowered.combines) == ["f0", "f1"]
    assert lowered.widths == {"f0": 8, "f1": 8, "f2": 8}


def test_features_without_ids_have_a_table(planted) -> None:
    lowered = MixedDimension().lower(planted("mde", {"alpha": 0.3}, sizes=(0, 1, 240)).declared())
    assert [(table.rows, table.width) for table in lowered.tables] == [(1, 8), (1, 8), (240, 2)]


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("mde", {"alpha": 0.5}, sizes=(240, 60)))
    assert trained.error < 0.5 * trained.first_error
