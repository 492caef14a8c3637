"""The loop learns what was planted, and always the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.evaluation.metrics import evaluate_vectors
from muxrec.evaluation.relevance import Relevance
from muxrec.recipe.model import Recipe
from muxrec.training.checkpoint import list_checkpoints
from muxrec.training.encode import encode_catalogue
from muxrec.training.history import read_history
from muxrec.training.job import Job
from muxrec.training.loop import Trained, fit
from muxrec.training.schedule import warmup_cosine

RecipeOf = Callable[..., Recipe]
JobOf = Callable[..., Job]

OPTIONS: list[dict[str, dict[str, Any]]] = [
    {},
    {"tower": {"fusion": "concat"}},
    {"tower": {"fusion": "mean"}},
    {"tower": {"hidden": 24}},
    {"tower": {"modalities": ("id",)}},
    {"tower": {"modalities": ("image",)}},
    {"tower": {"matryoshka": (4, 8)}},
    {"tower": {"id_dropout": 0.0, "modality_dropout": 0.5, "dropout": 0.0}},
    {"objective": {"positives": "single"}},
    {"objective": {"logq": 1.0}},
    {"objective": {"modality_weight": 0.1}},
    {"objective": {"learn_temperature": False}},
    {"objective": {"divergence": "sigmoid"}},
    {"objective": {"divergence": "similarity_distribution"}},
    {"objective": {"divergence": "triplet"}},
    {"objective": {"divergence": "angular_margin"}},
]


def _weights(trained: Trained) -> dict[str, Tensor]:
    state = trained.session.tables.export_state()
    tables = {f"table {name}": rows.weight for name, rows in state.tables.items()}
    return {**trained.session.dense.state_dict(), **tables}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_learns_the_planted_clusters(
    options: dict[str, Any], recipe_of: RecipeOf, job_of: JobOf, relevance: Relevance
) -> None:
    job = job_of(recipe_of(**options, epochs=4, log_every=1, lr=1e-2, table_lr=0.1))
    untrained = fit(job_of(recipe_of(**options, epochs=0)))
    trained = fit(job)
    losses = [record["loss"] for record in read_history(job.folder)]
    assert len(losses) >= 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    before, after = (
        evaluate_vectors(
            encode_catalogue(run.session.model, job.prepared.arrays)[0], relevance, ks=(7,)
        ).mean("recall_at_7")
        for run in (untrained, trained)
    )
    # 7 mates of 95 others: chance is 0.07. Pictures alone miss for 2 % of the items.
    assert after > max(0.6, before)


def test_the_same_job_gives_the_same_weights(recipe_of: RecipeOf, job_of: JobOf) -> None:
    job = job_of(recipe_of(epochs=1))
    first, second = _weights(fit(job)), _weights(fit(job, resume=False))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = _weights(fit(job_of(Recipe(**{**vars(recipe_of(epochs=1)), "seed": 1})), resume=False))
    assert not torch.equal(first["tower.head.weight"], other["tower.head.weight"])


def test_a_finished_training_is_not_trained_again(recipe_of: RecipeOf, job_of: JobOf) -> None:
    job = job_of(recipe_of(epochs=1))
    first = fit(job)
    folder = list_checkpoints(job.folder)[-1]
    written = folder.stat().st_mtime_ns
    again = fit(job)
    assert again.progress == first.progress
    assert folder.stat().st_mtime_ns == written
    one, two = _weights(first), _weights(again)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_checkpoints_of_another_recipe_are_not_continued(
    recipe_of: RecipeOf, job_of: JobOf, caplog: pytest.LogCaptureFixture
) -> None:
    fit(job_of(recipe_of(epochs=1)))
    trained = fit(job_of(recipe_of(epochs=1, lr=1e-3)))
    assert "checkpoints_of_another_job" in caplog.text
    fresh = fit(job_of(recipe_of(epochs=1, lr=1e-3)), resume=False)
    one, two = _weights(trained), _weights(fresh)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_early_stopping_keeps_the_best_epoch(recipe_of: RecipeOf, job_of: JobOf) -> None:
    # Twelve clear clusters are ranked perfectly long before 40 epochs, and then nothing is better.
    recipe = recipe_of(epochs=40, early_stop=2, lr=2e-2, table_lr=0.2, keep=1)
    job = job_of(recipe, validate=True)
    trained = fit(job)
    scores = {
        record["step"]: record["validation_ndcg_at_10"]
        for record in read_history(job.folder)
        if "validation_ndcg_at_10" in record
    }
    best = max(scores, key=lambda step: (scores[step], -step))
    assert trained.checkpoint == best
    assert len(scores) < 40
    assert max(scores) > best
    assert job.validation is not None
    assert job.validation(trained.session.model)["ndcg_at_10"] == scores[best]
    assert fit(job).checkpoint == best


def test_a_loss_that_is_not_finite_stops_and_names_the_step(
    recipe_of: RecipeOf, job_of: JobOf
) -> None:
    job = job_of(recipe_of())
    job.prepared.arrays.dense["sentence"].values[5] = np.nan
    job.prepared.arrays.dense["sentence"].present[5] = True
    with pytest.raises(TrainingError, match=r"the loss became nan at step \d+ .*lower train\.lr"):
        fit(job)


def test_metrics_are_reported_while_training_runs(recipe_of: RecipeOf, job_of: JobOf) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    job = job_of(recipe_of(epochs=2, log_every=4), validate=True)
    fit(Job(**{**vars(job), "report": lambda step, values: seen.append((step, values))}))
    names = {name for _, values in seen for name in values}
    assert {"loss", "temperature", "lr", "items_per_s", "validation_ndcg_at_10"} <= names
    history = [json.loads(x) for x in (job.folder / "history.jsonl").read_text().splitlines()]
    assert [record["step"] for record in history] == [step for step, _ in seen]


def test_the_temperature_stays_in_its_bounds(recipe_of: RecipeOf, job_of: JobOf) -> None:
    trained = fit(job_of(recipe_of(epochs=4, lr=1.0, warmup=0.0)))
    assert 0.01 - 1e-6 <= trained.session.objective.temperature <= 1.0 + 1e-6


def test_encoding_does_not_depend_on_the_batch_size(recipe_of: RecipeOf, job_of: JobOf) -> None:
    job = job_of(recipe_of(epochs=1))
    model = fit(job).session.model
    whole, parts = encode_catalogue(model, job.prepared.arrays)
    pieces, _ = encode_catalogue(model, job.prepared.arrays, batch_size=7)
    # Matrix products of other shapes sum in another order.
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=2e-6)
    np.testing.assert_allclose(parts.sum(axis=1), whole, rtol=0, atol=2e-6)


def test_items_without_any_modality_are_counted(
    recipe_of: RecipeOf, job_of: JobOf, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_of(recipe_of(epochs=0, tower={"modalities": ("image",)}))
    arrays = job.prepared.arrays
    for name in ("look", "pixels"):
        arrays.dense[name].present[:3] = False
    with caplog.at_level(logging.INFO):
        vectors, parts = encode_catalogue(fit(job).session.model, arrays)
    gone = ~(arrays.dense["look"].present | arrays.dense["pixels"].present)
    assert f"items_without_modality count={gone.sum()}" in caplog.text
    assert not vectors[gone].any()
    assert not parts[gone].any()
    assert vectors[~gone].any(axis=1).all()


def test_the_rate_rises_and_falls() -> None:
    rates = [warmup_cosine(step, total=100, warmup=0.1) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < min(rates) <= rates[0]
    assert warmup_cosine(0, total=1, warmup=0.0) == 1.0


def test_bf16_on_the_cpu_trains_too(
    recipe_of: RecipeOf, job_of: JobOf, relevance: Relevance
) -> None:
    job = job_of(recipe_of(epochs=4, precision="bf16", lr=1e-2, table_lr=0.1))
    vectors, _ = encode_catalogue(fit(job).session.model, job.prepared.arrays)
    assert vectors.dtype == np.float32
    assert evaluate_vectors(vectors, relevance, ks=(7,)).mean("recall_at_7") > 0.6


def test_a_gpu_that_is_not_there_is_refused(recipe_of: RecipeOf, job_of: JobOf) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        fit(job_of(recipe_of(device="cuda")))


def test_history_drops_what_is_trained_again(tmp_path: Path) -> None:
    from muxrec.training.history import History

    history = History(tmp_path, step=0)
    for step in (1, 2, 3):
        history.add(step=step)
    with history.path.open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3]
    History(tmp_path, step=2).add(step=3, again=True)
    assert read_history(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
