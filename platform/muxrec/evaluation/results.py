"""``results.md``: the tables of the README, generated, with everything that ``main`` loses to."""

from __future__ import annotations

from typing import Any

from muxrec.evaluation.summary import metric_names

EXPOSURE = {"coverage_at_10": "coverage@10", "hub_skew": "hub skew", "popular_share": "popular"}


def results_markdown(report: dict[str, Any]) -> str:
    """Markdown of all tables.

    Args:
        report: The body of ``metrics.json``.
    """
    facts = report["facts"]
    about = (
        f"Recipe `{facts['recipe hash'][:12]}`, dataset `{report['dataset'][:12]}`, commit "
        f"`{facts['git commit']}`, {report['items']:,} items; the whole catalogue is ranked minus "
        "the query. Recall and ndcg in percent with a 95 % bootstrap interval over queries; "
        "`±` is the standard deviation over seeds."
    )
    lines = [
        f"# {report['name']}: results on the {report['split']} period",
        "",
        about,
        "",
        *(f"- {note}" for note in report["notes"]),
    ]
    for truth in report["truths"]:
        for part in truth["slices"]:
            lines += ["", *_slice(report, truth, part)]
    lines += ["", *_widths(report)]
    return "\n".join(lines).rstrip() + "\n"


def _slice(report: dict[str, Any], truth: dict[str, Any], part: dict[str, Any]) -> list[str]:
    names = metric_names(tuple(report["ks"]))
    seen = EXPOSURE if part["name"] == "all" else {}
    lines = [
        f"## {part['title']} ({truth['name'].replace('_', ' ')}, {part['queries']:,} queries)",
        "",
        _line(["", *(spoken(name) for name in names), *seen.values()]),
        _line(["---", *["---:"] * (len(names) + len(seen))]),
    ]
    for row in part["rows"]:
        shown = report["exposure"][row["name"]]
        cells = [cell(row["metrics"][name], interval=at == 0) for at, name in enumerate(names)]
        name = f"**{row['name']}**" if row["name"] == "main" else row["name"]
        lines.append(_line([name, *cells, *(_share(key, shown[key]) for key in seen)]))
    if part["differences"]:
        lines += ["", *_differences(part, names[0])]
    return lines


def _differences(part: dict[str, Any], metric: str) -> list[str]:
    lines = [
        _line([f"main minus ... ({spoken(metric)}, points)", "difference", "95 %", "detectable"]),
        _line(["---", "---:", "---:", "---:"]),
    ]
    for entry in part["differences"]:
        gap = entry["metrics"][metric]
        mark = "" if gap["clear"] else " (not told from zero)"
        ends = f"{percent(gap['low'], sign=True)} to {percent(gap['high'], sign=True)}{mark}"
        mean = percent(gap["mean"], sign=True)
        lines.append(_line([entry["name"], mean, ends, percent(gap["detectable"])]))
    return lines


def _widths(report: dict[str, Any]) -> list[str]:
    if not report["widths"]:
        return []
    names = metric_names(tuple(report["ks"]))
    lines = ["## Main by vector width", "", _line(["width", *(spoken(n) for n in names)])]
    lines.append(_line(["---:"] * (len(names) + 1)))
    return lines + [
        _line([str(entry["width"]), *(cell(entry["metrics"][n]) for n in names)])
        for entry in report["widths"]
    ]


def spoken(metric: str) -> str:
    """A metric as people write it: ``recall@10``."""
    return metric.replace("_at_", "@")


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share in percent with one decimal; a dash for None."""
    if value is None:
        return "-"
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text


def cell(metric: dict[str, Any], *, interval: bool = False) -> str:
    """Mean in percent, the spread over seeds, and the interval where it is asked for."""
    text = percent(metric["mean"])
    if metric.get("sd") is not None:
        text += f" ± {percent(metric['sd'])}"
    if interval and metric["mean"] is not None:
        text += f" [{percent(metric['low'])}, {percent(metric['high'])}]"
    return text


def _share(key: str, value: float) -> str:
    return f"{value:.1f}" if key == "hub_skew" else percent(value)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
