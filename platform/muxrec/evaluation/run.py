"""One evaluation, run folder in, report folder out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError
from muxrec.evaluation.archive import ARCHIVE, save_study
from muxrec.evaluation.baseline_rows import baseline_rows
from muxrec.evaluation.baselines.view import training_view
from muxrec.evaluation.facts import run_facts
from muxrec.evaluation.notes import notes_on
from muxrec.evaluation.relevance import (
    CO_ENGAGEMENT,
    WARM_CATALOGUE,
    build_relevance,
    within_catalogue,
)
from muxrec.evaluation.report.neighbours import browser_data
from muxrec.evaluation.report.page import report_page
from muxrec.evaluation.results import results_markdown
from muxrec.evaluation.study import MAIN, Study, build_truths
from muxrec.evaluation.summary import summarise
from muxrec.evaluation.trained_rows import TrainedRun, load_vectors, missing_runs, trained_rows
from muxrec.evaluation.untrained_dense import UntrainedDense
from muxrec.evaluation.widths import by_width
from muxrec.manifest import write_text_atomically
from muxrec.recipe.load import output_folder, recipe_hash
from muxrec.recipe.model import Recipe

log = logging.getLogger("muxrec.evaluation")


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation wrote.

    Attributes:
        folder: Report folder: ``index.html``, ``metrics.json``, ``results.md``, ``queries.npz``.
        report: The body of ``metrics.json``.
    """

    folder: Path
    report: dict[str, Any]


def evaluate_run(recipe: Recipe, runs: Sequence[TrainedRun], *, split: str = "test") -> Evaluated:
    """Measure every baseline and every finished training of a recipe, and write the report.

    Args:
        recipe: The recipe; its output folder must hold a dataset and a trained ``main``.
        runs: Trainings that the recipe asks for, done or not.
        split: ``test`` for the report, ``validation`` to choose by (goes to ``report/validation``).

    Raises:
        DataError: ``main`` is not trained, vectors are of another dataset, or data are damaged.
    """
    output = output_folder(recipe)
    snapshot = Snapshot.open(output / "dataset")
    main = [run for run in runs if run.name == MAIN and run.is_done]
    if not main:
        raise DataError(
            f"{output} holds no main tower of this recipe: run `muxrec train RECIPE` first"
        )
    items = snapshot.items()
    study = _study(recipe, snapshot, items, runs, split=split, cache=output / "cache")
    count, digest = len(items), snapshot.digest
    vectors = [load_vectors(run, count=count, digest=digest) for run in main]
    report = summarise(study, resamples=recipe.evaluation.bootstrap, seed=recipe.seed)
    report["widths"] = _widths(recipe, study, vectors)
    report["notes"] = notes_on(report, recipe, missing=missing_runs(runs))
    report["notes"] += _foreign_data(recipe, snapshot)
    report["facts"] = run_facts(recipe, digest=snapshot.digest, seeds=[run.seed for run in main])
    folder = output / "report" if split == "test" else output / "report" / split
    folder.mkdir(parents=True, exist_ok=True)
    save_study(study, folder / ARCHIVE)
    browser = browser_data(
        items,
        vectors[0],
        study.truths[0].relevance if study.truths else None,
        display=recipe.export.display,
        image=recipe.export.image,
    )
    page = report_page(
        report, browser=browser, shown=_shown(study, report), histories=_histories(main)
    )
    write_text_atomically(folder / "metrics.json", json.dumps(report, indent=1, allow_nan=False))
    write_text_atomically(folder / "results.md", results_markdown(report))
    write_text_atomically(folder / "index.html", page)
    return Evaluated(folder, report)


def _study(
    recipe: Recipe,
    snapshot: Snapshot,
    items: pa.Table,
    runs: Sequence[TrainedRun],
    *,
    split: str,
    cache: Path,
) -> Study:
    relevance = build_relevance(snapshot, items, split=split, recipe=recipe)
    warm = ~items["is_cold"].to_numpy().astype(bool)
    if not warm.all():
        relevance[WARM_CATALOGUE] = within_catalogue(relevance[CO_ENGAGEMENT], warm)
    truths = build_truths(items, relevance, recipe)
    known = {truth.name: truth.relevance for truth in truths}
    dense = UntrainedDense(recipe, snapshot, cache=cache)
    view = training_view(snapshot, items, recipe=recipe, dense=dense)
    rows, unavailable = baseline_rows(
        view, known, digest=snapshot.digest, cache=cache / "evaluation"
    )
    train_events = items["train_events"].to_numpy()
    rows += trained_rows(runs, known, train_events, digest=snapshot.digest)
    return Study(
        name=recipe.name,
        split=split,
        digest=snapshot.digest,
        ks=recipe.evaluation.ks,
        item_keys=items["item_key"].to_numpy(),
        truths=truths,
        rows=tuple(rows),
        unavailable=unavailable,
    )


def _widths(recipe: Recipe, study: Study, vectors: list) -> list[dict[str, Any]]:
    if not recipe.tower.matryoshka or not study.truths:
        return []
    return by_width(
        vectors,
        study.truths[0].relevance,
        widths=sorted({*recipe.tower.matryoshka, vectors[0].shape[1]}),
        ks=study.ks,
        resamples=recipe.evaluation.bootstrap,
    )


def _foreign_data(recipe: Recipe, snapshot: Snapshot) -> list[str]:
    if snapshot.manifest.get("recipe_hash") in (None, recipe_hash(recipe, "data")):
        return []
    told = "The dataset was built with another `data` section than this recipe has: "
    return [told + "`muxrec data build RECIPE` builds it anew."]


def _shown(study: Study, report: dict[str, Any]) -> dict[str, list[int]]:
    """N_10 per item of main, of the baseline with the best recall, and of random."""
    first = f"recall_at_{study.ks[0]}"
    names = [MAIN, "random"]
    if report["truths"]:
        rows = report["truths"][0]["slices"][0]["rows"]
        baselines = [row for row in rows if row["kind"] == "baseline"]
        best = max(baselines, key=lambda row: row["metrics"][first]["mean"] or 0, default=None)
        names.insert(1, best["name"] if best else MAIN)
    found = {row.name: next(iter(row.runs.values())) for row in study.rows}
    kept = [name for name in dict.fromkeys(names) if name in found]
    return {name: found[name].exposure.shown.tolist() for name in kept}


def _histories(main: Sequence[TrainedRun]) -> dict[int, list[dict[str, Any]]]:
    """Records of every seed's ``history.jsonl``; a last line cut short is left out."""
    histories: dict[int, list[dict[str, Any]]] = {}
    for run in main:
        path = run.folder / "history.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        histories[run.seed] = [json.loads(line) for line in lines if line]
    return histories
