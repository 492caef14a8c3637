"""``tt``: a table as a train of three small tensors."""

from __future__ import annotations

import math

import torch
from hypothesis import given as always
from hypothesis import strategies as st

from muxrec.tables.initial import initial_rows
from muxrec.tables.methods.tt import FLOOR, TensorTrain, core_init, digit_bases, three_factors


@always(st.integers(1, 10**8))
def test_three_digits_write_every_index_and_little_more(size: int) -> None:
    high, middle, low = digit_bases(size)
    assert high * middle * low >= size
    assert (high - 1) * middle * low < size
    assert max(high, middle, low) <= math.ceil(size ** (1 / 3)) + 1


@always(st.integers(1, 600))
def test_every_width_is_a_product_of_three(width: int) -> None:
    first, second, third = three_factors(width)
    assert first * second * third == width
    assert first <= second <= third


def test_factors_are_as_equal_as_the_width_allows() -> None:
    assert [three_factors(width) for width in (16, 64, 12, 13, 1)] == [
        (2, 2, 4),
        (4, 4, 4),
        (2, 2, 3),
        (1, 1, 13),
        (1, 1, 1),
    ]


def test_a_vector_is_the_product_of_three_slices(planted, all_vectors) -> None:
    given, rank = planted("tt", {"rank": 2}), 2
    tables = given.build()
    cores = [rows.weight.double() for rows in tables.local_tables().values()]
    (_, middle, low), (a, b, c) = digit_bases(240), three_factors(8)
    for index in (0, 1, 77, 239):
        left = cores[0][index // (middle * low)].view(a, rank)
        inner = cores[1][index // low % middle].view(rank, b, rank)
        right = cores[2][index % low].view(rank, c)
        expected = torch.einsum("ap,pbq,qc->abc", left, inner, right).flatten()
        found = all_vectors(tables, given)[index]
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-8)


def test_only_large_numbers_start_a_core(planted) -> None:
    """Plain draws make a product that is peaked at zero, unlike the rows that it stands for."""
    lowered = TensorTrain().lower(planted("tt", {"rank": 2}, sizes=(5_000,)).declared())
    largest = core_init(0.05, 2)
    for table in lowered.tables:
        sizes = initial_rows(table, 0).abs()
        assert float(sizes.min()) >= FLOOR * largest * (1 - 1e-6)
        assert float(sizes.max()) <= largest * (1 + 1e-6)


def test_vectors_start_with_the_variance_of_the_declared_rows(planted, all_vectors) -> None:
    for rank in (1, 4):
        given = planted("tt", {"rank": rank}, sizes=(20_000,))
        square = all_vectors(given.build(), given).square().mean()
        # Cores are a few hundred draws: their mean square, cubed, varies by some percent.
        assert 0.8 < float(square) / (given.table.init**2 / 3) < 1.25


def test_a_feature_that_would_not_shrink_stays_full(planted) -> None:
    given = planted("tt", {"rank": 2}, sizes=(240, 3, 2, 1, 0))
    lowered = TensorTrain().lower(given.declared())
    names = [table.name for table in lowered.tables]
    assert names == ["t.f0.core0", "t.f0.core1", "t.f0.core2", "t.f1", "t.f2", "t.f3", "t.f4"]


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("tt", {"rank": 6}))
    assert trained.error < 0.6 * trained.first_error
