"""From results to what a report says: means with intervals, differences, the best per budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from scipy import stats

from muxrec.bench.compression.record import Result
from muxrec.bench.compression.sweep import entries_of
from muxrec.errors import DataError
from muxrec.tables.budget import TOLERANCE

FULL = "full"
"""The method that all others are compared with."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: Mean over seeds.
        half_width: Half the width of Student's t interval; None for one seed, which shows no
            spread.
        seeds: How many seeds.
    """

    mean: float
    half_width: float | None
    seeds: int

    @property
    def low(self) -> float:
        """Lower end; the mean itself for one seed."""
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean itself for one seed."""
        return self.mean + (self.half_width or 0.0)

    @property
    def is_clear(self) -> bool:
        """Whether the interval is known and excludes zero."""
        return self.half_width is not None and not self.low <= 0 <= self.high


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t interval of at least one value."""
    count = len(values)
    if count == 1:
        return Estimate(values[0], None, 1)
    factor = float(stats.t.ppf(0.975, count - 1))
    return Estimate(mean(values), factor * stdev(values) / count**0.5, count)


@dataclass(frozen=True)
class Entry:
    """A method at a budget.

    Attributes:
        method: Method.
        budget: Share of full tables' bytes that was asked for.
        results: One per seed, at the tuned rate.
        quality: Quality on the test part.
        against_full: Quality minus full tables', paired by seed; None where full was not measured,
            and for full tables themselves.
        share: Share of full tables' bytes, without the dictionary, that the served form really has;
            None where full was not measured.
    """

    method: str
    budget: float
    results: tuple[Result, ...]
    quality: Estimate
    against_full: Estimate | None
    share: float | None

    @property
    def training_bytes(self) -> float:
        """Bytes in training, mean over seeds: a dictionary's size differs a little by hash."""
        return mean(result.training_bytes for result in self.results)

    @property
    def serving_bytes(self) -> float:
        """Bytes when served, mean over seeds."""
        return mean(result.serving_bytes for result in self.results)

    @property
    def dictionary_bytes(self) -> float:
        """Bytes of the dictionary of known ids, mean over seeds."""
        return mean(result.dictionary_bytes for result in self.results)

    @property
    def limited_bytes(self) -> float:
        """Bytes that a budget limits: the served form without the dictionary, mean over seeds."""
        return self.serving_bytes - self.dictionary_bytes

    @property
    def step_ms(self) -> float:
        """Process CPU time of a training step, median over seeds, milliseconds."""
        return median(result.step_ms for result in self.results)

    @property
    def epochs(self) -> str:
        """Epochs whose weights were kept, over seeds."""
        kept = [result.best_epoch for result in self.results]
        return str(kept[0]) if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"


@dataclass(frozen=True)
class Frontier:
    """All entries of one task on one data set.

    Attributes:
        entries: In the order of the sweep.
        refused: Method and budget that could not be, and why.
    """

    entries: tuple[Entry, ...]
    refused: Mapping[tuple[str, float], str]

    @property
    def first(self) -> Result:
        """Any result: what it says of task, data and rules holds for all."""
        return self.entries[0].results[0]

    @property
    def methods(self) -> list[str]:
        """Methods, in the order of the sweep."""
        return list(dict.fromkeys(entry.method for entry in self.entries))

    def of(self, method: str) -> list[Entry]:
        """A method's entries, by rising budget."""
        return sorted((e for e in self.entries if e.method == method), key=lambda e: e.budget)

    def at(self, budget: float) -> list[Entry]:
        """Entries at one budget, best first."""
        found = [entry for entry in self.entries if entry.budget == budget]
        return sorted(found, key=lambda entry: -entry.quality.mean)

    def within(self, budget: float) -> list[Entry]:
        """The best entry of every method that really is within ``budget``, best first.

        A method that was asked for less, or that has no size to set, takes part wherever its served
        bytes without the dictionary fit, with the tolerance that budgets have. Where full tables
        were not measured, the budget that was asked for counts.
        """
        fits = [e for e in self.entries if _share_of(e) <= budget * (1 + TOLERANCE)]
        best: dict[str, Entry] = {}
        for entry in sorted(fits, key=lambda entry: -entry.quality.mean):
            best.setdefault(entry.method, entry)
        return list(best.values())

    @property
    def budgets(self) -> list[float]:
        """Budgets, largest first."""
        return sorted({entry.budget for entry in self.entries}, reverse=True)

    @property
    def whole_bytes(self) -> float | None:
        """Bytes of full tables without the dictionary; None where they were not measured."""
        found = [entry.limited_bytes for entry in self.entries if entry.method == FULL]
        return found[0] if found else None

    def ranked(self) -> list[str]:
        """Methods by their mean place over the budgets that they are within, best first."""
        places: dict[str, list[float]] = {entry.method: [] for entry in self.entries}
        for budget in self.budgets:
            entries = self.within(budget)
            for place, entry in enumerate(entries):
                places[entry.method].append(place / len(entries))
        return sorted(places, key=lambda method: mean(places[method] or [1.0]))


def summarise(
    results: Sequence[Result], refused: Mapping[tuple[str, float], str] | None = None
) -> Frontier:
    """The frontier of results of one task on one data set, with what was refused.

    Raises:
        DataError: There are no results, or they are of several tasks or rules.
    """
    rules = {(r.task, r.data, r.metric, r.label_rule, r.split_rule, r.width) for r in results}
    if len(rules) != 1:
        raise DataError(f"expected results of one task, data set and rule, got {len(rules)}")
    grouped = entries_of(results)
    full = {result.seed: result for result in grouped.get((FULL, 1.0), [])}
    entries = tuple(_entry(*key, found, full) for key, found in grouped.items())
    return Frontier(entries, refused or {})


def against(first: Entry, second: Entry) -> Estimate | None:
    """Quality of ``first`` minus ``second``, paired by seed; None without a common seed."""
    return _difference(first.results, {result.seed: result for result in second.results})


def _entry(method: str, budget: float, found: list[Result], full: dict[int, Result]) -> Entry:
    share = None
    if full:
        whole = next(iter(full.values()))
        share = _limited(found[0]) / _limited(whole)
    return Entry(
        method,
        budget,
        tuple(found),
        estimate([result.quality for result in found]),
        None if method == FULL else _difference(found, full),
        share,
    )


def _share_of(entry: Entry) -> float:
    return entry.budget if entry.share is None else entry.share


def _limited(result: Result) -> int:
    return result.serving_bytes - result.dictionary_bytes


def _difference(found: Sequence[Result], other: dict[int, Result]) -> Estimate | None:
    gaps = [r.quality - other[r.seed].quality for r in found if r.seed in other]
    return estimate(gaps) if gaps else None
