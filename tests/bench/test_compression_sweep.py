"""A sweep tunes fairly, goes on where it stopped, and its report says what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from muxrec.bench.compression import command
from muxrec.bench.compression.click_task import ClickTask
from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.command import shown_command
from muxrec.bench.compression.facts import facts
from muxrec.bench.compression.markdown import markdown_report
from muxrec.bench.compression.page import html_report
from muxrec.bench.compression.rates import parse_rates
from muxrec.bench.compression.record import Result, read_result, write_result
from muxrec.bench.compression.settings import ClickSettings
from muxrec.bench.compression.summary import against, estimate, summarise
from muxrec.bench.compression.sweep import Cell, OnEpoch, Sweep, run_sweep
from muxrec.errors import DataError, RecipeError

SWEEP = Sweep(
    ("full", "unified-4", "hashed"),
    (0.5, 0.1),
    seeds=3,
    rates=parse_rates("adagrad:0.1,rmsprop:0.2"),
)
SETTINGS = {"engine": "auto", "muxrec": "0", "hash": "x", "data_digest": "d"}
OWN = {"width": "16 numbers", "training": "at most 3 epochs"}


class KnownTask:
    """A task whose results are a formula: quality falls with the budget, 0.2 is the better rate."""

    name, dataset = "known", "formula"

    def __init__(self, stop_after: int | None = None, version: int = 0, least: float = 0.0) -> None:
        self.ran: list[Cell] = []
        self.stop_after, self.version, self.least = stop_after, version, least

    def identity(self) -> dict[str, Any]:
        return {**SETTINGS, "version": self.version}

    def facts(self) -> dict[str, str]:
        return OWN

    def run(self, cell: Cell, settings: Mapping[str, Any], on_epoch: OnEpoch) -> Result:
        if cell.method == "hashed" and cell.budget < self.least:
            raise RecipeError("hashed cannot go below 0.05 here")
        if self.stop_after is not None and len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        self.ran.append(cell)
        on_epoch(1, 0.5)
        worse = {"full": 0.0, "full:int8": 0.001, "unified-4": 0.01, "hashed": 0.1}[cell.method]
        quality = 0.8 - worse * (1.1 - cell.budget) + 0.001 * cell.seed
        # The rate that is better in validation is worse on the test part: tuning must not look.
        quality -= 0.05 * (cell.rate.lr == 0.2)
        return Result(
            task=self.name,
            data=self.dataset,
            method=cell.method,
            budget=cell.budget,
            seed=cell.seed,
            metric="AUC",
            quality=quality,
            validation=0.7 + cell.rate.lr,
            others={"log loss": 0.4},
            optimizer=cell.rate.optimizer,
            table_lr=cell.rate.lr,
            epochs=3,
            best_epoch=1 + cell.seed,
            step_ms=2.0,
            width=16,
            parameters=int(1_000 * cell.budget),
            training_bytes=int(5_000 * cell.budget),
            serving_bytes=int(4_000 * cell.budget),
            dictionary_bytes=0,
            label_rule="made up",
            split_rule="none",
            settings=settings,
        )


def test_every_entry_is_tuned_on_one_seed_by_validation_alone(tmp_path: Path) -> None:
    task = KnownTask()
    results = run_sweep(SWEEP, task, tmp_path).results
    assert len(task.ran) == SWEEP.cells == 5 * (2 + 2)
    assert {(r.table_lr, r.validation) for r in results} == {(0.2, 0.7 + 0.2)}
    assert len(results) == 5 * 3
    order = [(0, "adagrad:0.1"), (0, "rmsprop:0.2"), (1, "rmsprop:0.2"), (2, "rmsprop:0.2")]
    assert [(cell.seed, str(cell.rate)) for cell in task.ran[:4]] == order
    assert {c.budget for c in task.ran if c.method == "full"} == {1.0}


def test_a_format_is_served_from_the_training_that_float32_was_tuned_to(tmp_path: Path) -> None:
    task = KnownTask()
    alone = Sweep(("full:int8",), (0.5,), 3, SWEEP.rates)
    results = run_sweep(alone, task, tmp_path).results
    assert [(c.method, c.seed, c.rate.lr) for c in task.ran] == [
        ("full", 0, 0.1),
        ("full", 0, 0.2),
        *(("full:int8", seed, 0.2) for seed in range(3)),
    ]
    assert [(r.method, r.seed, r.table_lr) for r in results] == [
        ("full:int8", seed, 0.2) for seed in range(3)
    ]
    assert len(task.ran) == alone.cells


@given(st.integers(0, 20))
def test_a_stopped_sweep_goes_on_where_it_stopped(
    tmp_path_factory: pytest.TempPathFactory, done: int
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    first, second, third = KnownTask(stop_after=done), KnownTask(), KnownTask()
    if done < SWEEP.cells:
        with pytest.raises(KeyboardInterrupt):
            run_sweep(SWEEP, first, folder)
    else:
        run_sweep(SWEEP, first, folder)
    results = run_sweep(SWEEP, second, folder)
    assert len(first.ran) == done
    assert len(first.ran) + len(second.ran) == SWEEP.cells
    assert run_sweep(SWEEP, third, folder) == results
    assert third.ran == []


def test_what_a_method_refuses_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    outcome = run_sweep(SWEEP, KnownTask(least=0.2), tmp_path)
    assert outcome.refused == {("hashed", 0.1): "hashed cannot go below 0.05 here"}
    frontier = summarise(outcome.results, outcome.refused)
    said = facts(frontier, SWEEP, "muxrec bench compression", task=OWN)
    for report in (markdown_report(frontier, said), html_report(frontier, said)):
        assert "Not possible" in report
        assert "hashed cannot go below 0.05 here" in report
    alone = Sweep(("hashed",), (0.1,), 1, SWEEP.rates)
    with pytest.raises(RecipeError, match=r"no entry is possible: hashed cannot go below 0\.05"):
        run_sweep(alone, KnownTask(least=0.2), tmp_path / "other")


def test_other_settings_measure_again(tmp_path: Path) -> None:
    run_sweep(SWEEP, KnownTask(), tmp_path)
    other = KnownTask(version=1)
    run_sweep(SWEEP, other, tmp_path)
    assert len(other.ran) == SWEEP.cells


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    result = KnownTask().run(Cell("full", 1, 0, SWEEP.rates[0]), {}, lambda epoch, auc: None)
    path = tmp_path / "deep" / "one.json"
    write_result(path, result)
    assert read_result(path) == result
    path.write_text(path.read_text()[:-10])
    with pytest.raises(DataError, match=r"one\.json: expected a result .* delete the file"):
        read_result(path)
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(DataError, match="expected a result of format"):
        read_result(path)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_the_interval_is_students(values: list[float]) -> None:
    found = estimate(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert found.half_width == pytest.approx(half, abs=1e-12)
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_one_seed_has_no_interval_and_shows_nothing_clearly() -> None:
    found = estimate([0.7])
    assert (found.low, found.mean, found.high, found.half_width) == (0.7, 0.7, 0.7, None)
    assert not found.is_clear


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    frontier = summarise(run_sweep(SWEEP, KnownTask(), tmp_path).results)
    small = frontier.of("unified-4")[0]
    assert small.budget == 0.1
    # Seeds shift both alike, so the paired difference has no spread and the quality has one.
    assert small.quality.half_width == pytest.approx(0.001 * 4.303 / 3**0.5, rel=1e-3)
    assert small.against_full is not None
    assert small.against_full.mean == pytest.approx(-0.01)
    assert small.against_full.half_width == pytest.approx(0, abs=1e-12)
    assert small.share == pytest.approx(0.1)
    assert frontier.of("full")[0].against_full is None
    assert [entry.method for entry in frontier.at(0.1)] == ["unified-4", "hashed"]
    gap = against(frontier.of("hashed")[0], small)
    assert gap is not None
    assert gap.mean == pytest.approx(-0.09)
    assert frontier.ranked()[-1] == "hashed"


def test_results_of_two_rules_are_not_mixed(tmp_path: Path) -> None:
    results = run_sweep(SWEEP, KnownTask(), tmp_path).results
    with pytest.raises(DataError, match="one task, data set and rule, got 2"):
        summarise([*results, replace(results[0], label_rule="another")])
    with pytest.raises(DataError, match="got 0"):
        summarise([])


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_the_report_says_what_stands_behind_every_quality(tmp_path: Path) -> None:
    frontier = summarise(run_sweep(SWEEP, KnownTask(), tmp_path).results)
    said = facts(frontier, SWEEP, "muxrec bench compression --attack '<script>'", task=OWN)
    text, page = markdown_report(frontier, said), html_report(frontier, said)
    for needed in (
        "made up",
        "none",
        "3; a seed",
        "16 numbers",
        "adagrad:0.1, rmsprop:0.2",
        "at most 3 epochs",
    ):
        assert needed in text
        assert needed in page
    line = next(row for row in text.splitlines() if row.startswith("| unified-4 | 10 %"))
    assert (
        "0.7410 ± 0.0025 | -0.0100 ± 0.0000 | 500 | 400 | 0 | 2.00 | rmsprop:0.2 | 1 to 3 | 3"
        in line
    )
    # Every entry, its loss against full tables included, and nothing else.
    assert (
        sum(row.startswith(("| full", "| unified-4", "| hashed")) for row in text.splitlines()) == 5
    )
    elements = Outline()
    elements.feed(page)
    names = [name for name, _ in elements.elements]
    assert names.count("script") == 1
    assert "img" not in names
    assert not [a for _, a in elements.elements if "src" in a or (a.get("href") or "#")[0] != "#"]
    whiskers = [a for name, a in elements.elements if (a.get("class") or "").startswith("span s")]
    # Five entries in two charts, and once more in each method's own.
    assert len(whiskers) == 3 * 5


def test_the_command_writes_the_report_and_goes_on_without_training(
    planted: ClickData,
    settings: ClickSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(command.CLICK_DATA, "movielens-100k", lambda folder: planted)
    monkeypatch.setitem(command.CLICK_SETTINGS, "movielens-100k", settings)
    arguments = ["--data", "movielens-100k", "--folder", str(tmp_path), "--out", str(tmp_path)]
    arguments += [
        "--methods",
        "full,unified-2",
        "--budgets",
        "0.3",
        "--seeds",
        "2",
        "--tune",
        "adagrad:0.1",
    ]
    first = CliRunner().invoke(command.compression_bench, arguments, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    machine = json.loads((tmp_path / "click-planted.json").read_text())
    assert len(machine["results"]) == 4
    assert (tmp_path / "click-planted.html").is_file()
    monkeypatch.setattr(ClickTask, "run", None)
    again = CliRunner().invoke(command.compression_bench, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert json.loads((tmp_path / "click-planted.json").read_text()) == machine


@pytest.mark.parametrize("text", ["adagrad", "adagrad:x", "adam:0.1", "rmsprop:-1", ""])
def test_a_bad_rate_is_named(text: str) -> None:
    with pytest.raises(RecipeError, match=f"--tune: expected an optimiser .* got {text!r}"):
        parse_rates(text)


@pytest.mark.parametrize(("option", "value"), [("--budgets", "0.1,x"), ("--budgets", "-1")])
def test_bad_numbers_are_refused(tmp_path: Path, option: str, value: str) -> None:
    arguments = ["--data", "movielens-100k", "--folder", str(tmp_path), "--out", str(tmp_path)]
    done = CliRunner().invoke(command.compression_bench, [*arguments, option, value])
    assert done.exit_code == 2
    assert repr(value) in done.output


def test_a_report_shows_a_command_that_others_can_run() -> None:
    arguments = ["--quiet", "bench", "compression", "--folder", "/private/data/movielens-100k"]
    shown = shown_command(arguments, data="/private/data/")
    assert shown == "muxrec bench compression --folder $MUXREC_DATA/movielens-100k"
    assert shown_command(["bench", "--out", "a b"], data=None) == "muxrec bench --out 'a b'"
