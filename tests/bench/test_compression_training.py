"""A click training learns what there is to learn, in the same order for every method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from muxrec.bench.compression.batches import ClickBatches
from muxrec.bench.compression.click_task import ClickTask, salted
from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.contestants import contestant
from muxrec.bench.compression.making import Making
from muxrec.bench.compression.model import HEADS, Head
from muxrec.bench.compression.plans import plan
from muxrec.bench.compression.rates import Rate, parse_rates
from muxrec.bench.compression.schedule import Schedule
from muxrec.bench.compression.settings import CLICK_SETTINGS, ClickSettings
from muxrec.bench.compression.sweep import Cell
from muxrec.bench.compression.train import ClickTraining
from muxrec.errors import RecipeError, TrainingError
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.full import Full
from muxrec.tables.methods.protocol import Advanced, Stage

ADAGRAD = Rate("adagrad", 0.1)


def making_of(
    data: ClickData,
    name: str = "full",
    *,
    budget: float = 1,
    seed: int = 0,
    head: Head = "mlp",
    lr: float = 0.1,
    engine: Any = "auto",
) -> Making:
    made = plan(contestant(name), data, budget=budget, width=8, init=0.05)
    return Making(made, head, engine, seed, lr)


def training_of(
    data: ClickData, settings: ClickSettings, name: str = "full", **changes: Any
) -> ClickTraining:
    """A training; changes of the schedule by name, everything else goes to the making."""
    own = {key: changes.pop(key) for key in list(changes) if hasattr(settings.schedule, key)}
    schedule: Schedule = replace(settings.schedule, **own)
    return ClickTraining(making_of(data, name, **changes), data, schedule)


@pytest.mark.parametrize("head", HEADS)
def test_a_planted_rule_is_learned(planted: ClickData, settings: ClickSettings, head: Head) -> None:
    seen: list[tuple[int, float]] = []
    trained = training_of(planted, settings, head=head).run(
        lambda epoch, auc: seen.append((epoch, auc))
    )
    assert trained.test_auc > 0.999
    assert trained.validation_auc == max(auc for _, auc in seen)
    assert trained.best_epoch == max(seen, key=lambda pair: (pair[1], -pair[0]))[0]
    assert [epoch for epoch, _ in seen] == list(range(1, trained.epochs + 1))
    assert trained.step_ms > 0


def test_one_row_for_all_users_learns_nothing(planted: ClickData, settings: ClickSettings) -> None:
    # Ten numbers of eight are the least: a row for each feature.
    trained = training_of(planted, settings, "hashed", budget=0.04).run()
    # All impressions of a feature read one row, but for empty bags of tags, which say nothing.
    assert trained.test_auc == pytest.approx(0.5, abs=0.1)


def test_the_best_epochs_weights_are_the_ones_that_are_left(
    planted: ClickData, settings: ClickSettings
) -> None:
    noisy = replace(planted, labels=np.random.default_rng(1).permutation(planted.labels))
    training = training_of(noisy, settings, lr=0.5, epochs=6)
    seen: list[float] = []
    trained = training.run(lambda epoch, auc: seen.append(auc))
    assert trained.best_epoch < trained.epochs
    for model in (training.model, training.served()):
        assert training.evaluate(model, "validation")[0] == trained.validation_auc == max(seen)
        assert training.evaluate(model, "test")[0] == trained.test_auc


def test_training_stops_after_the_epochs_without_progress(
    planted: ClickData, settings: ClickSettings
) -> None:
    trained = training_of(planted, settings, epochs=50, patience=3).run()
    assert trained.epochs == trained.best_epoch + 3


def test_the_data_order_depends_on_the_seed_alone(
    planted: ClickData, settings: ClickSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def order(name: str, seed: int) -> list[list[int]]:
        seen: list[list[int]] = []
        take = ClickBatches.take

        def spy(self: ClickBatches, positions: torch.Tensor) -> Any:
            seen.append(positions.tolist())
            return take(self, positions)

        with monkeypatch.context() as patch:
            patch.setattr(ClickBatches, "take", spy)
            budget = 1 if name == "full" else 0.5
            training_of(planted, settings, name, budget=budget, seed=seed, epochs=1).run()
        return seen

    assert order("full", 0) == order("unified-2", 0)
    assert order("full", 0) != order("full", 1)


def test_two_runs_of_a_cell_give_the_same_quality(
    planted: ClickData, settings: ClickSettings
) -> None:
    cell, task = Cell("unified-2", 0.03, 3, ADAGRAD), ClickTask(planted, settings)
    first, second = (task.run(cell, {}, lambda epoch, auc: None) for _ in range(2))
    assert replace(first, step_ms=0) == replace(second, step_ms=0)
    assert first.quality < 1
    other = task.run(replace(cell, seed=4), {}, lambda epoch, auc: None)
    assert other.quality != first.quality


def test_the_rows_are_updated_by_the_rule_of_the_cell(
    planted: ClickData, settings: ClickSettings
) -> None:
    task, found = ClickTask(planted, settings), []
    for rate in parse_rates("adagrad:0.01,rmsprop:0.01"):
        cell = Cell("unified-2", 0.1, 0, rate)
        found.append(task.run(cell, {}, lambda epoch, auc: None))
    assert [result.optimizer for result in found] == ["adagrad", "rmsprop"]
    assert found[0].others != found[1].others


def test_heads_of_equal_width_start_equal_whatever_the_method(planted: ClickData) -> None:
    heads = [
        making_of(planted, name, budget=budget).model().head.state_dict()
        for name, budget in (("full", 1), ("unified-4", 0.3), ("hashed", 0.3))
    ]
    assert all(torch.equal(heads[0][key], head[key]) for head in heads for key in head)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        expected = torch.rand(3)
        torch.manual_seed(9)
        making_of(planted).model()
        assert torch.equal(torch.rand(3), expected)


def test_the_head_owns_weights_for_every_features_vector(planted: ClickData) -> None:
    model = making_of(planted, "unified-2", budget=0.5).model()
    batch = ClickBatches(planted).take(torch.arange(5))
    joined = torch.cat([model.tables(batch.sparse)[f.name] for f in planted.features], dim=1)
    assert joined.shape == (5, 3 * 8)
    assert torch.equal(model(batch.sparse), model.head(joined)[:, 0])


def test_a_loss_that_is_not_finite_stops_training(
    planted: ClickData, settings: ClickSettings
) -> None:
    training = training_of(planted, settings)
    with torch.no_grad():
        next(training.model.head.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss became nan in epoch 1, step 0"):
        training.run()


def test_threads_are_given_back(planted: ClickData, settings: ClickSettings) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        task = ClickTask(planted, settings)
        seen: list[int] = []
        cell = Cell("full", 1, 0, ADAGRAD)
        task.run(cell, {}, lambda epoch, auc: seen.append(torch.get_num_threads()))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["torchrec", "reference"])
@pytest.mark.parametrize("name", ["full", "unified-4", "hashed"])
def test_bytes_are_those_of_the_tensors(
    planted: ClickData, settings: ClickSettings, name: str, engine: str
) -> None:
    budget = 1 if name == "full" else 0.5
    training = training_of(planted, settings, name, budget=budget, engine=engine, epochs=1)
    size = training.run()
    ids = sum(len(np.unique(planted.ids(f.name, "train"))) for f in planted.features)
    limited = size.serving_bytes - size.dictionary_bytes
    assert limited == 4 * size.parameters
    if name == "full":
        assert size.parameters == 8 * ids
        # A key of eight bytes and a row number of four, and where every second bucket begins.
        assert 12 * ids < size.dictionary_bytes < 16 * ids
    else:
        assert 32 * (ids // 2 - len(planted.features)) <= limited <= 32 * ids / 2
        assert size.dictionary_bytes == 0
    # Row-wise Adagrad keeps one number per row.
    width = 2 if name == "unified-4" else 8
    aligned = 4 if engine == "torchrec" and width == 2 else width
    rows = size.parameters // width
    assert size.training_bytes == size.dictionary_bytes + 4 * rows * (aligned + 1)


class Recorded(Full):
    """Full tables in two stages; the second starts with the first one's rows, halved."""

    stages = (Stage("warm", 0.5), Stage("again", 0.5, restarts=True))

    def __init__(self) -> None:
        self.left: list[dict[str, torch.Tensor]] = []
        self.quality: list[float] = []

    def advance(self, declared: Any, rows: Any, combines: Any, evaluate: Any) -> Advanced:
        self.left.append(dict(rows))
        self.quality.append(evaluate())
        return Advanced(values={name: value / 2 for name, value in rows.items()})


def test_a_stage_leaves_its_best_weights_to_the_next(
    planted: ClickData, settings: ClickSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Recorded()
    monkeypatch.setitem(METHODS, "full", method)
    training = training_of(planted, settings, epochs=8, patience=1)
    first_head = {k: v.clone() for k, v in training.model.head.state_dict().items()}
    starts: list[dict[str, torch.Tensor]] = []
    seen: list[float] = []
    enter = training._enter_stages

    def spy(epoch: int) -> None:
        enter(epoch)
        if epoch == 4:
            rows = training.model.tables.local_tables()
            starts.append({name: each.weight.clone() for name, each in rows.items()})
            head = training.model.head.state_dict()
            assert all(torch.equal(first_head[key], head[key]) for key in head)

    monkeypatch.setattr(training, "_enter_stages", spy)
    trained = training.run(lambda epoch, auc: seen.append(auc))
    # The first stage runs its four epochs although the rule is learned at once.
    assert method.quality == [max(seen[:4])]
    assert len(method.left) == len(starts) == 1
    assert all(torch.equal(starts[0][k], v / 2) for k, v in method.left[0].items())
    assert trained.best_epoch > 4
    assert trained.validation_auc == max(seen[4:])


def test_more_stages_than_epochs_are_refused(
    planted: ClickData, settings: ClickSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "full", Recorded())
    with pytest.raises(RecipeError, match="at least 2, got 1"):
        training_of(planted, settings, epochs=1)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_within_its_budget_or_refuses_it(
    planted: ClickData, settings: ClickSettings, name: str
) -> None:
    entrant = contestant(name)
    assert entrant.name == name
    budget = 0.5 if entrant.has_budget else 1
    try:
        training = training_of(planted, settings, name, budget=budget)
    except RecipeError as error:
        # So few ids do not pay for every method's own networks and codebooks.
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert entrant.has_budget
        assert "cannot go below" in refusal
        return
    trained = training.run()
    assert 0 <= trained.test_auc <= 1
    ids = sum(len(np.unique(planted.ids(f.name, "train"))) for f in planted.features)
    if entrant.has_budget:
        limited = trained.serving_bytes - trained.dictionary_bytes
        assert limited <= 1.01 * budget * 32 * ids


@pytest.mark.parametrize(
    ("name", "budget", "fault"),
    [
        ("unified-3", 0.5, "3 probes do not divide width 8"),
        ("full", 0.5, "full has no size to set: its budget is 1, got 0.5"),
        ("full-2", 1, "probes: a full table has no probes"),
    ],
)
def test_an_impossible_plan_is_refused(
    planted: ClickData, name: str, budget: float, fault: str
) -> None:
    with pytest.raises(RecipeError, match=fault):
        plan(contestant(name), planted, budget=budget, width=8, init=0.05)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no method 'magic' \(known: full, hashed"):
        contestant("magic")


def test_a_seed_draws_another_hash(planted: ClickData) -> None:
    first, second = (
        plan(contestant("unified"), salted(planted, seed), budget=0.5, width=8, init=0.05)
        for seed in (0, 1)
    )
    names = [{feature.name for feature in made.features} for made in (first, second)]
    assert not names[0] & names[1]


@pytest.mark.data
@pytest.mark.slow
def test_movielens_100k_reaches_its_bars(data_folder: Any) -> None:
    from muxrec.bench.compression.datasets import CLICK_DATA

    data = CLICK_DATA["movielens-100k"](data_folder / "movielens-100k")
    task = ClickTask(data, CLICK_SETTINGS["movielens-100k"])

    def auc(method: str, budget: float) -> float:
        return task.run(Cell(method, budget, 0, ADAGRAD), {}, lambda epoch, auc: None).quality

    full, four = auc("full", 1), auc("unified-4", 0.1)
    # The bars are of means over hashes; one hash may lie half a point of AUC lower.
    assert full >= 0.788
    assert four >= 0.780
