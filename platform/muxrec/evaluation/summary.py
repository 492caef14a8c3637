"""A study in numbers: the body of ``metrics.json``, which every table and chart is drawn from."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from muxrec.evaluation.bootstrap import difference, interval
from muxrec.evaluation.metrics import PerQuery
from muxrec.evaluation.slices import Slice
from muxrec.evaluation.study import MAIN, Row, RowMetrics, Study, Truth


def summarise(study: Study, *, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Means, intervals, seeds' spread and differences of every row on every slice.

    Args:
        study: The study.
        resamples: Bootstrap resamples per interval.
        seed: Seed of the resampling, the same for all rows.

    Returns:
        JSON values only; NaN is None. ``truths`` -> ``slices`` -> ``rows`` and ``differences``
        (``main`` minus the row, paired by query); ``exposure`` per row.
    """
    return _no_nan(
        {
            "name": study.name,
            "split": study.split,
            "dataset": study.digest,
            "ks": list(study.ks),
            "items": len(study.item_keys),
            "truths": [_truth(study, truth, resamples, seed) for truth in study.truths],
            "exposure": {row.name: _exposure(row) for row in study.rows},
            "unavailable": study.unavailable,
        }
    )


def metric_names(ks: tuple[int, ...]) -> list[str]:
    """Metrics in table order: recall and ndcg at the first cut-off, recall at the others, mrr."""
    first, *others = ks
    return [f"recall_at_{first}", f"ndcg_at_{first}", *(f"recall_at_{k}" for k in others), "mrr"]


def headline(summary: dict[str, Any], row: str = MAIN) -> dict[str, float]:
    """One row's means as flat names: ``recall_at_10``, ``cold_recall_at_10``, ``coverage_at_10``.

    Slices of the first ground truth are prefixes; other ground truths come before them.
    """
    flat: dict[str, float] = {}
    for at, truth in enumerate(summary["truths"]):
        for part in truth["slices"]:
            names = [truth["name"]] * (at > 0) + [part["name"]] * (part["name"] != "all")
            found = [entry for entry in part["rows"] if entry["name"] == row]
            for entry in found:
                for metric, value in entry["metrics"].items():
                    flat["_".join([*names, metric])] = value["mean"]
    flat |= summary["exposure"].get(row, {})
    return {name: value for name, value in flat.items() if value is not None}


def _truth(study: Study, truth: Truth, resamples: int, seed: int) -> dict[str, Any]:
    return {
        "name": truth.name,
        "queries": len(truth.relevance),
        "relevant": len(truth.relevance.items),
        "unknown": truth.relevance.unknown,
        "slices": [_slice(study, truth, part, resamples, seed) for part in truth.slices],
    }


def _slice(study: Study, truth: Truth, part: Slice, resamples: int, seed: int) -> dict[str, Any]:
    found = {row.name: study.metrics(row, truth, part) for row in study.rows}
    names = [*metric_names(study.ks), *(f"ndcg_at_{k}" for k in study.ks[1:])]
    main = found.get(MAIN)
    answered = next(iter(found.values())).values["mrr"] if found else np.empty(0)
    return {
        "name": part.name,
        "title": part.title,
        "queries": int((~np.isnan(answered)).sum()),
        "rows": [_row(row, found[row.name], names, resamples, seed) for row in study.rows],
        "differences": [
            _difference(name, main.values, found[name].values, names, resamples, seed)
            for name in found
            if main is not None and name != MAIN
        ],
    }


def _row(
    row: Row, metrics: RowMetrics, names: list[str], resamples: int, seed: int
) -> dict[str, Any]:
    values = {
        name: {
            **asdict(interval(metrics.values[name], resamples=resamples, seed=seed)),
            "sd": metrics.sd[name],
        }
        for name in names
    }
    return {"name": row.name, "kind": row.kind, "seeds": list(row.runs), "metrics": values}


def _difference(
    name: str,
    main: dict[str, PerQuery],
    other: dict[str, PerQuery],
    names: list[str],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    metrics = {}
    for metric in names:
        found = difference(main[metric], other[metric], resamples=resamples, seed=seed)
        metrics[metric] = {**asdict(found), "clear": found.is_clear}
    return {"name": name, "metrics": metrics}


def _exposure(row: Row) -> dict[str, float]:
    runs = [run.exposure for run in row.runs.values()]
    return {
        "coverage_at_10": float(np.mean([run.coverage for run in runs])),
        "hub_skew": float(np.mean([run.hub_skew for run in runs])),
        "popular_share": float(np.mean([run.popular_share for run in runs])),
    }


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_no_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
