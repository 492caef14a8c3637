"""The demo's two tables: recall of every method, and neighbours with what is true about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SLICES = {"all": "all items", "cold": "new items"}
METRIC = "recall_at_10"


def recall_table(report: dict[str, Any]) -> str:
    """Recall at 10 in percent of every row, on all queries and on new items.

    Args:
        report: The body of ``report/metrics.json``.
    """
    parts = {part["name"]: part for part in report["truths"][0]["slices"]}
    chosen = {title: parts[name] for name, title in SLICES.items() if name in parts}
    lines = [f"{'recall@10, %':<28}" + "".join(f"{title:>12}" for title in chosen)]
    for row in next(iter(chosen.values()))["rows"]:
        cells = "".join(f"{_percent(part, row['name']):>12}" for part in chosen.values())
        lines.append(f"{row['name']:<28}{cells}")
    return "\n".join(lines)


def neighbour_table(
    neighbours: Sequence[dict[str, Any]], labels: dict[str, str], *, title: str
) -> str:
    """One line per neighbour: score, title, true cluster, and which modality gave the score.

    Args:
        neighbours: As the server answered them, with fields and reasons.
        labels: Item id -> department and style, which the towers were never told.
        title: Heading.
    """
    lines = [title]
    for found in neighbours:
        name = str(found.get("fields", {}).get("title", found["item_id"]))
        reasons = found.get("reasons", {})
        why = ", ".join(f"{key} {value:+.2f}" for key, value in reasons.items())
        lines.append(f"  {found['score']:.3f}  {name:<28}{labels[found['item_id']]:<20}{why}")
    return "\n".join(lines)


def _percent(part: dict[str, Any], name: str) -> str:
    row = next(entry for entry in part["rows"] if entry["name"] == name)
    mean = row["metrics"][METRIC]["mean"]
    return "-" if mean is None else f"{100 * mean:.1f}"
