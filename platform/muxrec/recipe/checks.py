"""Faults that no single type shows: ranges, and sections that must agree with each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from muxrec.recipe.divergences import DIVERGENCE_SPECS
from muxrec.recipe.model import Objective, Recipe, Source
from muxrec.recipe.syntax import Path_
from muxrec.spec.features import FeatureSpec, check_features
from muxrec.spec.table_methods import faults_of_options

Fault = tuple[Path_, str]


@dataclass(frozen=True)
class _Range:
    path: str
    holds: Callable[[Any], bool]
    expected: str


def _at_least(low: float, *paths: str) -> tuple[_Range, ...]:
    return tuple(_Range(path, lambda v: v >= low, f"at least {low}") for path in paths)


def _above_zero(*paths: str) -> tuple[_Range, ...]:
    return tuple(_Range(path, lambda v: v > 0, "a number above 0") for path in paths)


def _share(*paths: str) -> tuple[_Range, ...]:
    return tuple(_Range(p, lambda v: 0 <= v < 1, "at least 0 and below 1") for p in paths)


RANGES = (
    _Range("data.split.train", lambda v: 0 < v < 1, "above 0 and below 1"),
    _Range("data.split.validation", lambda v: 0 < v < 1, "above 0 and below 1"),
    _Range("data.max_rejected", lambda v: 0 <= v <= 1, "between 0 and 1"),
    _Range("data.lookback_days", lambda v: v is None or v >= 1, "at least 1, or nothing"),
    _Range("objective.temperature", lambda v: 0.01 <= v <= 1, "between 0.01 and 1"),
    _Range("objective.logq", lambda v: 0 <= v <= 1, "between 0 and 1"),
    _Range("export.min_same_top10", lambda v: 0 < v <= 1, "above 0 and at most 1"),
    *_above_zero("data.pairs.window_days", "train.lr", "train.table_lr", "export.max_abs_error"),
    *_share("tower.dropout", "tower.id_dropout", "tower.modality_dropout", "train.warmup"),
    *_at_least(0, "tower.hidden", "objective.modality_weight", "train.weight_decay", "seed"),
    *_at_least(0, "train.checkpoint_every", "train.early_stop", "train.threads"),
    *_at_least(0, "evaluation.bootstrap"),
    *_at_least(1, "data.pairs.window_events", "data.pairs.min_count", "data.pairs.top_n"),
    *_at_least(1, "tower.width", "train.epochs", "train.log_every", "train.keep"),
    *_at_least(1, "evaluation.max_relevant", "evaluation.min_events", "evaluation.seeds"),
    *_at_least(1, "index.ef_construction", "index.ef_search", "index.neighbours"),
    *_at_least(1, "index.golden_queries"),
    *_at_least(2, "data.pairs.max_user_events", "train.batch_size", "index.m"),
    *_at_least(18, "export.opset"),
)


def check_recipe(recipe: Recipe) -> list[Fault]:
    """Every fault of a well-typed recipe as ``(path, what)``; empty when it is sound."""
    return [
        *_name(recipe),
        *_ranges(recipe),
        *_source(recipe.data.source),
        *_split(recipe),
        *_features(recipe),
        *_modalities(recipe),
        *_divergence(recipe.objective),
        *_rising(("tower", "matryoshka"), recipe.tower.matryoshka, below=recipe.tower.width),
        *_rising(("evaluation", "ks"), recipe.evaluation.ks, below=None),
    ]


def _name(recipe: Recipe) -> Iterator[Fault]:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", recipe.name):
        yield ("name",), f"expected letters, digits, - and _, got {recipe.name!r}"


def _ranges(recipe: Recipe) -> Iterator[Fault]:
    for rule in RANGES:
        value: Any = recipe
        for step in rule.path.split("."):
            value = getattr(value, step)
        if not rule.holds(value):
            yield tuple(rule.path.split(".")), f"expected {rule.expected}, got {value}"


def _source(source: Source) -> Iterator[Fault]:
    files = {"path": source.path, "interactions": source.interactions, "items": source.items}
    needed, optional = ("interactions", "items") if source.kind == "generic" else ("path", "")
    for key, value in files.items():
        if key == needed and value is None:
            yield ("data", "source", key), f"a {source.kind} source needs {key}"
        if key not in (needed, optional) and value is not None:
            yield ("data", "source", key), f"a {source.kind} source has no {key}: remove it"


def _split(recipe: Recipe) -> Iterator[Fault]:
    split = recipe.data.split
    if split.train + split.validation >= 1:
        total = f"{split.train} + {split.validation}"
        yield ("data", "split"), f"train + validation must leave a test slice, got {total}"


def _features(recipe: Recipe) -> Iterator[Fault]:
    if not recipe.features:
        yield ("features",), "expected at least one feature, got none"
    for line in check_features(recipe.features, recipe.tables):
        path, what = re.fullmatch(r"([\w.]+):? (.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        yield tuple(int(p) if p.isdigit() else p for p in path.split(".")), what
    for at, feature in enumerate(recipe.features):
        for key, what in _columns(feature):
            yield ("features", at, key), what


def _columns(feature: FeatureSpec) -> Iterator[tuple[str, str]]:
    single = feature.kind in ("id", "number", "vector", "image")
    if not feature.columns:
        yield "columns", "expected at least one catalogue column, got none"
    if single and len(feature.columns) > 1:
        shown = ", ".join(feature.columns)
        yield "columns", f"a {feature.kind} feature reads one column, got {shown}"
    if any(size < 1 for size in feature.ngrams):
        yield "ngrams", f"expected positive sizes, got {list(feature.ngrams)}"
    if feature.kind == "number" and not feature.boundaries:
        yield "boundaries", "a number feature needs bin edges, got none"


def _modalities(recipe: Recipe) -> Iterator[Fault]:
    declared = list(dict.fromkeys(feature.modality for feature in recipe.features))
    lists: list[tuple[Path_, tuple[str, ...]]] = [
        (("evaluation", "ablations", name), chosen)
        for name, chosen in recipe.evaluation.ablations.items()
    ]
    if recipe.tower.modalities is not None:
        lists.append((("tower", "modalities"), recipe.tower.modalities))
    for path, chosen in lists:
        unknown = [name for name in chosen if name not in declared]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            known = ", ".join(declared) or "none"
            got = list(chosen)
            yield (
                path,
                f"expected different modalities that a feature declares ({known}), got {got}",
            )


def _divergence(objective: Objective) -> Iterator[Fault]:
    name = objective.divergence
    spec = DIVERGENCE_SPECS[name]
    for option, what in faults_of_options(name, spec.options, objective.divergence_options):
        yield ("objective", "divergence_options", option), what
    if objective.logq and not spec.has_temperature:
        what = f"{name} compares plain cosines, which are no log probabilities to correct"
        yield ("objective", "logq"), f"{what}: leave it at 0, got {objective.logq}"


def _rising(path: Path_, values: tuple[int, ...], *, below: int | None) -> Iterator[Fault]:
    rises = list(values) == sorted(set(values)) and all(v > 0 for v in values)
    if not rises or (below is not None and values and values[-1] >= below):
        limit = "" if below is None else f", all below tower.width {below}"
        yield path, f"expected rising positive numbers{limit}, got {list(values)}"
    if below is None and not values:
        yield path, "expected at least one number, got none"
