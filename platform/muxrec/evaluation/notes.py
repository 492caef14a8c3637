"""Sentences that a reader of the tables needs: what the controls say, what is missing, losses."""

from __future__ import annotations

from typing import Any

from muxrec.evaluation.study import MAIN
from muxrec.recipe.model import Recipe

_TOLD = ("all", "warm", "cold")


def notes_on(
    summary: dict[str, Any], recipe: Recipe, *, missing: dict[str, list[int]]
) -> list[str]:
    """Sentences in plain text, most important first; losses of ``main`` are always among them."""
    notes = [_split(summary), *_verdicts(summary), *_gains(summary, recipe)]
    if missing:
        listed = ", ".join(
            f"{name} (seed {', '.join(map(str, missing[name]))})" for name in missing
        )
        notes.append(
            f"Not trained with this recipe, no row: {listed}. `muxrec train RECIPE` trains them."
        )
    notes += [f"No row {name}: {why}." for name, why in summary["unavailable"].items()]
    for truth in summary["truths"]:
        if truth["unknown"]:
            count = truth["unknown"]
            notes.append(
                f"{truth['name']}: {count} related ids are not in the catalogue: left out."
            )
    return notes


def _split(summary: dict[str, Any]) -> str:
    if summary["split"] == "test":
        return (
            "All numbers are on the test period. Baselines and training read the training period "
            "only, early stopping the validation period after it."
        )
    return "All numbers are on the validation period: use them for choices, never as a result."


def _verdicts(summary: dict[str, Any]) -> list[str]:
    """All, warm and cold queries of the first truth: what ``main`` loses to, beats and equals."""
    if not summary["truths"]:
        return []
    metric = f"recall_at_{summary['ks'][0]}"
    told = (part for part in summary["truths"][0]["slices"] if part["name"] in _TOLD)
    verdicts = (_verdict(part, metric) for part in told)
    return [verdict for verdict in verdicts if verdict]


def _verdict(part: dict[str, Any], metric: str) -> str:
    found: dict[str, list[str]] = {"behind": [], "ahead of": [], "level with": []}
    for entry in part["differences"]:
        gap = entry["metrics"][metric]
        if gap["mean"] is None:
            continue
        side = "level with" if not gap["clear"] else "ahead of" if gap["mean"] > 0 else "behind"
        size = f" ({_points(gap['mean'])})" if side == "behind" else ""
        found[side].append(f"{entry['name']}{size}")
    sides = "; ".join(f"{side} {', '.join(names)}" for side, names in found.items() if names)
    if not sides:
        return ""
    title = part["title"].split(":")[0]
    return f"{title}, {_spoken(metric)} in points: {MAIN} is {sides}."


def _gains(summary: dict[str, Any], recipe: Recipe) -> list[str]:
    """What pictures and encoders gave, by the controls and by the row without pictures."""
    if not summary["truths"]:
        return []
    metric = f"recall_at_{summary['ks'][0]}"
    part = summary["truths"][0]["slices"][0]
    gaps = {entry["name"]: entry["metrics"][metric] for entry in part["differences"]}
    kinds = {row["name"]: row["kind"] for row in part["rows"]}
    said = []
    without = _without_image(recipe)
    for name, gap in gaps.items():
        if gap["mean"] is None:
            continue
        if name == without:
            said.append(f"Image gain: {MAIN} minus {name} is {_gap(gap, metric)}.")
        elif kinds[name] == "control":
            said.append(
                f"Control: {MAIN} minus {name} is {_gap(gap, metric)}. This much of the result "
                "comes from the right content being with the right item."
            )
    return said


def _without_image(recipe: Recipe) -> str | None:
    used = recipe.tower.modalities or tuple({feature.modality for feature in recipe.features})
    wanted = set(used) - {"image"}
    if wanted == set(used):
        return None
    fits = [name for name, parts in recipe.evaluation.ablations.items() if set(parts) == wanted]
    return fits[0] if fits else None


def _gap(gap: dict[str, Any], metric: str) -> str:
    interval = f"{_points(gap['low'])} to {_points(gap['high'])}"
    verdict = "clear" if gap["clear"] else "not told from zero"
    return f"{_points(gap['mean'])} points of {_spoken(metric)} (interval {interval}: {verdict})"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")


def _spoken(metric: str) -> str:
    return metric.replace("_at_", "@")
