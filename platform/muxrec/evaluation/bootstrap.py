"""How sure a mean is: bootstrap intervals over queries, paired differences, what can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

_CHUNK = 50
# Normal quantiles of a two-sided test at 5 % plus 80 % power: 1.960 + 0.842.
_POWER = 2.802


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its 95 % bootstrap interval.

    Attributes:
        mean: Mean over the counted queries; NaN when there is none, like both ends.
        low: 2.5 % quantile of the resampled means.
        high: 97.5 % quantile.
        queries: Queries counted.
    """

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, first minus second, over the queries that both answer.

    Attributes:
        p_value: Wilcoxon signed-rank test, two-sided; 1 when no query differs.
        detectable: Smallest true difference that this many queries would show in 80 % of repeats
            at the 5 % level, given how much the two differ from query to query.
    """

    p_value: float
    detectable: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def interval(values: npt.NDArray[np.float64], *, resamples: int, seed: int = 0) -> Interval:
    """Mean and 95 % interval over queries.

    Args:
        values: One number per query, float64 ``[Q]``; NaN is not counted.
        resamples: Bootstrap resamples; below 1 both ends are the mean.
        seed: Seed of the resampling. The same seed resamples equal queries equally.
    """
    counted = values[~np.isnan(values)]
    if not counted.size:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(counted.mean())
    if resamples < 1:
        return Interval(mean, mean, mean, counted.size)
    means = np.concatenate(list(_resampled_means(counted, resamples, seed)))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high), counted.size)


def difference(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    *,
    resamples: int,
    seed: int = 0,
) -> Difference:
    """Paired difference ``first - second`` with interval, test and smallest detectable size.

    Args:
        first: One number per query, float64 ``[Q]``; NaN where the query is not counted.
        second: The same queries in the same order.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The two do not have the same number of queries.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired queries expected, got {first.shape} and {second.shape}")
    gap = first - second
    gap = gap[~np.isnan(gap)]
    found = interval(gap, resamples=resamples, seed=seed)
    p_value = _wilcoxon(gap)
    error = gap.std(ddof=1) / np.sqrt(gap.size) if gap.size > 1 else np.nan
    return Difference(
        found.mean, found.low, found.high, found.queries, p_value, float(_POWER * error)
    )


def _wilcoxon(gap: npt.NDArray[np.float64]) -> float:
    """Two-sided signed-rank p-value by the normal approximation; 1 when nothing differs."""
    if not np.any(gap != 0):
        return 1.0
    return float(np.asarray(stats.wilcoxon(gap, method="asymptotic"))[1])


def _resampled_means(
    values: npt.NDArray[np.float64], resamples: int, seed: int
) -> Iterator[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        shape = (min(_CHUNK, resamples - start), values.size)
        yield values[rng.integers(0, values.size, size=shape)].mean(axis=1)
