"""A sweep: every method at every budget, tuned on one seed, then measured on all of them.

Every cell is one file, written whole, so a sweep can be stopped at any time and goes on where it
stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from muxrec.bench.compression.contestants import contestant
from muxrec.bench.compression.rates import Rate
from muxrec.bench.compression.record import Result, read_result, write_result
from muxrec.bench.compression.schedule import OnEpoch
from muxrec.errors import RecipeError
from muxrec.manifest import digest_of


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        method: Name of a contestant.
        budget: Share of full tables' bytes.
        seed: Seed.
        rate: How the rows are updated.
    """

    method: str
    budget: float
    seed: int
    rate: Rate


class Task(Protocol):
    """What a sweep runs; ``click`` is one, item-to-item retrieval another."""

    @property
    def name(self) -> str:
        """Name of the task."""
        ...

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that decides a result besides the cell, as JSON values."""
        ...

    def facts(self) -> Mapping[str, str]:
        """What the results rest on besides the sweep itself, as pairs of a name and a sentence."""
        ...

    def run(self, cell: Cell, settings: Mapping[str, Any], on_epoch: OnEpoch) -> Result:
        """Train and measure one cell; ``settings`` become part of the result."""
        ...


@dataclass(frozen=True)
class Sweep:
    """What is measured.

    Attributes:
        methods: Names of contestants.
        budgets: Shares of full tables' bytes; methods without a size to set, such as full,
            take part once, at 1.
        seeds: How many seeds, from 0.
        rates: Tried on seed 0 of every method and budget; the one with the best validation quality
            is used for all seeds. Formats that share a training share its rate too, so that they
            differ by the format alone.
    """

    methods: tuple[str, ...]
    budgets: tuple[float, ...]
    seeds: int
    rates: tuple[Rate, ...]

    def entries(self) -> list[tuple[str, float]]:
        """Every method with every budget that it is measured at."""
        return [
            (method, budget)
            for method in self.methods
            for budget in (self.budgets if contestant(method).has_budget else (1.0,))
        ]

    def cells_of(self, method: str) -> int:
        """How many cells are measured for one entry of ``method``."""
        is_shared = contestant(method).trained.name != method
        return len(self.rates) + self.seeds - (0 if is_shared else 1)

    @property
    def cells(self) -> int:
        """How many cells the whole sweep measures."""
        return sum(self.cells_of(method) for method, _ in self.entries())


@dataclass(frozen=True)
class Outcome:
    """What a sweep came to.

    Attributes:
        results: Results of all entries and seeds, each entry's at its tuned rate.
        refused: Method and budget that could not be, and why.
    """

    results: tuple[Result, ...]
    refused: Mapping[tuple[str, float], str]


def run_sweep(sweep: Sweep, task: Task, folder: Path) -> Outcome:
    """Measure every entry; one that its method refuses is kept with the reason.

    Args:
        sweep: What is measured.
        task: On what.
        folder: Results are read from and written to ``folder/results``.

    Raises:
        DataError: A result file in the folder is damaged.
        TrainingError: A loss became NaN or infinite; results before it are kept.
        RecipeError: No entry is possible.
    """
    identity, found = task.identity(), list[Result]()
    refused: dict[tuple[str, float], str] = {}
    with tqdm(total=sweep.cells, desc=f"{task.name} {task.dataset}", disable=None) as bar:

        def measure(cell: Cell) -> Result:
            result = _measured(cell, task, identity, folder / "results", bar)
            bar.update()
            return result

        for method, budget in sweep.entries():
            try:
                found += _tuned(sweep, method, budget, measure)
            except RecipeError as error:
                refused[method, budget] = str(error)
                bar.update(sweep.cells_of(method))
    if not found:
        raise RecipeError(f"no entry is possible: {next(iter(refused.values()), 'none given')}")
    return Outcome(tuple(found), refused)


def _tuned(
    sweep: Sweep, method: str, budget: float, measure: Callable[[Cell], Result]
) -> Iterator[Result]:
    trained = contestant(method).trained.name
    tried = {rate: measure(Cell(trained, budget, 0, rate)) for rate in sweep.rates}
    rate = max(tried, key=lambda each: tried[each].validation)
    if trained == method:
        yield tried[rate]
    for seed in range(1 if trained == method else 0, sweep.seeds):
        yield measure(Cell(method, budget, seed, rate))


def _measured(
    cell: Cell, task: Task, identity: Mapping[str, Any], folder: Path, bar: tqdm[Any]
) -> Result:
    settings = {**identity, **asdict(cell)}
    method = cell.method.replace(":", ".")
    name = f"{method}@{cell.budget:g}-seed{cell.seed}-{cell.rate.optimizer}-{cell.rate.lr:g}"
    path = folder / task.name / task.dataset / f"{name}-{digest_of(settings)[:12]}.json"
    if path.is_file():
        return read_result(path)

    def show(epoch: int, validation: float) -> None:
        bar.set_postfix_str(f"{name} epoch {epoch} validation {validation:.4f}")

    bar.set_postfix_str(name)
    result = task.run(cell, settings, show)
    write_result(path, result)
    return result


def entries_of(results: Sequence[Result]) -> dict[tuple[str, float], list[Result]]:
    """Results by method and budget, in the order of the sweep."""
    found: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        found.setdefault((result.method, result.budget), []).append(result)
    return found
