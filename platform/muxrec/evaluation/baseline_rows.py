"""The baselines' rows, kept in the cache: they change only with the data and the recipe."""

from __future__ import annotations

import logging
import os
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from muxrec.evaluation.archive import measured_arrays, measured_from
from muxrec.evaluation.baselines import BASELINES
from muxrec.evaluation.baselines.view import Baseline, BaselineUnavailableError, TrainingView
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.study import Measured, Row, measure
from muxrec.manifest import digest_of

# Raise it when a baseline's or a metric's code changes what they give.
VERSION = 1

log = logging.getLogger("muxrec.evaluation")


def baseline_rows(
    view: TrainingView,
    relevance: Mapping[str, Relevance],
    *,
    digest: str,
    cache: Path,
    baselines: Mapping[str, Baseline] = BASELINES,
) -> tuple[list[Row], dict[str, str]]:
    """``(rows, unavailable)``: every baseline measured, and why the others could not be.

    Args:
        view: What the baselines may see.
        relevance: Ground truths by name.
        digest: Content digest of the dataset; decides with the recipe what the cache may answer.
        cache: Folder of cached measurements; a damaged one is made again.
        baselines: Baselines by name.
    """
    rows, unavailable = [], {}
    for name, build in baselines.items():
        path = cache / f"{_key(name, view, relevance, digest)}.npz"
        try:
            run = _cached(path, relevance) or _measured(name, build, view, relevance, path)
        except BaselineUnavailableError as error:
            unavailable[name] = str(error)
            continue
        rows.append(Row(name, "baseline", {0: run}))
    return rows, unavailable


def _measured(
    name: str,
    build: Baseline,
    view: TrainingView,
    relevance: Mapping[str, Relevance],
    path: Path,
) -> Measured:
    start = time.perf_counter()
    train_events = view.items["train_events"].to_numpy()
    run = measure(build(view), relevance, train_events)
    log.info("baseline name=%r seconds=%.1f", name, time.perf_counter() - start)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez_compressed(temporary, allow_pickle=False, **measured_arrays(run))
    temporary.replace(path)
    return run


def _cached(path: Path, relevance: Mapping[str, Relevance]) -> Measured | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return measured_from(arrays, "", list(relevance))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.warning("baseline_cache_damaged path=%s", path)
        return None


def _key(name: str, view: TrainingView, relevance: Mapping[str, Relevance], digest: str) -> str:
    recipe = view.recipe
    truths = {
        truth: [digest_of(array.tolist()) for array in (r.queries, r.offsets, r.items)]
        for truth, r in relevance.items()
    }
    decides = {
        "version": VERSION,
        "baseline": name,
        "dataset": digest,
        "seed": recipe.seed,
        "features": [asdict(feature) for feature in recipe.features],
        "pairs": asdict(recipe.data.pairs),
        "untrained_text": recipe.evaluation.untrained_text,
        "truths": truths,
    }
    return digest_of(decides)[:20]
