from __future__ import annotations

import numpy as np
import pytest

from muxrec.evaluation.bootstrap import difference, interval


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [interval(rng.normal(3.0, 2.0, 200), resamples=300, seed=s) for s in range(200)]
    covered = np.mean([i.low <= 3.0 <= i.high for i in draws])
    # 200 repeats of a 95 % event have a standard error of 1.5 points; four of them are allowed.
    assert 0.89 <= covered <= 1.0


def test_an_interval_is_as_wide_as_the_normal_approximation():
    values = np.random.default_rng(1).normal(0, 1, 2_000)
    found = interval(values, resamples=2_000)
    # 2,000 resamples leave about 2 % of Monte Carlo error in a quantile; 10 % is allowed.
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(2_000), rel=0.1)


def test_equal_seeds_give_equal_intervals_and_nan_is_not_counted():
    values = np.array([1.0, 0.0, np.nan, 1.0, 0.5])
    assert interval(values, resamples=100, seed=4) == interval(values, resamples=100, seed=4)
    assert interval(values, resamples=100, seed=4).queries == 4


def test_no_query_gives_nan():
    found = interval(np.array([np.nan]), resamples=100)
    assert np.isnan(found.mean)
    assert found.queries == 0


def test_a_small_but_consistent_gain_is_clear_only_when_paired():
    rng = np.random.default_rng(2)
    hard = rng.random(300)
    better = hard + 0.02 + 0.01 * rng.normal(size=300)
    paired = difference(better, hard, resamples=500)
    assert paired.is_clear
    assert paired.p_value < 1e-6
    assert paired.detectable < 0.01
    apart = [interval(x, resamples=500) for x in (better, hard)]
    assert apart[0].low < apart[1].high


def test_two_equal_rows_do_not_differ():
    values = np.random.default_rng(3).random(50)
    found = difference(values, values, resamples=100)
    assert (found.mean, found.p_value, found.is_clear) == (0.0, 1.0, False)


def test_the_detectable_difference_is_found_in_about_four_of_five_repeats():
    rng = np.random.default_rng(4)
    size = difference(rng.normal(0, 1, 4_000)[:400], np.zeros(400), resamples=50).detectable
    repeats = [
        difference(rng.normal(size, 1, 400), np.zeros(400), resamples=200, seed=s).is_clear
        for s in range(150)
    ]
    # A power of 0.8 over 150 repeats has a standard error of 3.3 points; three of them are allowed.
    assert np.mean(repeats) == pytest.approx(0.8, abs=0.1)


def test_unpaired_arrays_are_refused():
    with pytest.raises(ValueError, match="paired queries expected"):
        difference(np.zeros(3), np.zeros(4), resamples=10)
