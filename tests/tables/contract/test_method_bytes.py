"""Bytes of every method: what is announced from shapes is what the tensors take."""

from __future__ import annotations

import pytest

from muxrec.errors import RecipeError
from muxrec.spec.budget import parse_budget
from muxrec.spec.features import TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.budget import check_frozen, served_bytes, solve_budgets
from muxrec.tables.memory import (
    measured_serving,
    measured_training,
    serving_bytes,
    serving_of,
    training_of,
)
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import Declared

WIDTH, IDS = 16, (2000, 50)


def test_training_takes_the_announced_bytes_by_purpose(case, engine: str) -> None:
    tables = case.build(engine)
    announced = training_of(tables.lowering, is_aligned=engine == "torchrec")
    assert measured_training(tables) == announced
    assert announced.total > 0


def test_every_stage_takes_the_announced_bytes(case) -> None:
    for tables in case.walk().ended.values():
        assert measured_training(tables) == training_of(tables.lowering, is_aligned=False)


def test_serving_takes_the_announced_bytes_by_purpose(case, serve: str) -> None:
    walked = case.walk(serve)
    announced = serving_of(walked.frozen)
    assert measured_serving(walked.served) == announced
    assert announced.limited > 0


def test_the_served_bytes_are_foreseen_before_training(case) -> None:
    method, table = METHODS[case.method], case.table()
    last = len(method.stages_of(table)) - 1
    shape = method.served_shape(Declared(table, case.features(), case.vocabularies, last))
    foreseen, real = serving_bytes(shape).limited, serving_of(case.walk().frozen).limited
    if METHOD_SPECS[case.method].free is None and last > 0:
        assert real <= foreseen  # Its size is found in training.
    else:
        assert real <= foreseen * 1.01


@pytest.mark.parametrize("budget", ["50%", "10%"])
def test_a_budget_is_filled_and_not_exceeded(case, budget: str) -> None:
    features = case.features()
    known = {
        feature.name: build_vocabulary(feature.name, range(size), counts=range(size, 0, -1))
        for feature, size in zip(features, IDS, strict=True)
    }
    table = case.table(width=WIDTH, rows=None, budget=budget, options=_without_free(case))
    allowed = int(parse_budget(budget).number * sum(IDS) * WIDTH * 4)
    if METHOD_SPECS[case.method].free is None:
        _check_fixed(case, features, table, known)
        return
    solved = solve_budgets(features, (table,), known)[0]
    found = served_bytes(solved, features, known)
    assert found <= allowed
    assert found >= allowed * case.fills


def _without_free(case) -> dict[str, float]:
    free = METHOD_SPECS[case.method].free
    return {name: value for name, value in case.options.items() if name != free}


def _check_fixed(case, features, table, known) -> None:
    """A method without a size of its own is refused where its size is known and too large."""
    stages = METHODS[case.method].stages_of(table)
    if len(stages) > 1:
        assert solve_budgets(features, (table,), known)[0].budget is None
        return
    size = served_bytes(table, features, known)
    share = parse_budget(table.budget).number
    if size > share * sum(IDS) * WIDTH * 4:
        with pytest.raises(RecipeError, match=f"{case.method} cannot go below"):
            solve_budgets(features, (table,), known)
    else:
        assert solve_budgets(features, (table,), known)[0].budget is None


def test_a_feature_that_would_grow_takes_no_more_than_a_full_table(case) -> None:
    features = case.features()[:1]
    for size in (0, 1, 3, 8, 33, 100):
        known = {features[0].name: build_vocabulary(features[0].name, range(size))}
        full = served_bytes(TableSpec(case.method, "full", WIDTH), features, known)
        for rows in {case.rows, case.rows and 2}:
            table = case.table(width=WIDTH, rows=rows)
            found = served_bytes(table, features, known)
            if METHOD_SPECS[case.method].needs_vocabulary:
                assert found <= full
            else:  # Any id is answered, which no full table could do.
                assert found == served_bytes(table, features, {})


def test_a_frozen_table_is_within_a_budget_of_its_own_bytes(case) -> None:
    frozen = case.walk().frozen
    check_frozen(frozen, (case.table(budget=f"{serving_of(frozen).limited}B"),))
