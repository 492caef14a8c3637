"""The tables of one slice: every row's metrics, and ``main`` minus every row."""

from __future__ import annotations

from typing import Any

from muxrec.evaluation.report.charts import interval_track
from muxrec.evaluation.report.document import scroll_table
from muxrec.evaluation.report.markup import Markup, tag
from muxrec.evaluation.results import EXPOSURE, percent, spoken
from muxrec.evaluation.study import MAIN
from muxrec.evaluation.summary import metric_names

_GROUPS = {"baseline": "Baselines", "trained": "Trained towers", "control": "Controls"}


def metric_table(report: dict[str, Any], part: dict[str, Any]) -> Markup:
    """All rows of a slice: interval of the first metric drawn, every metric in numbers."""
    names = metric_names(tuple(report["ks"]))
    seen = EXPOSURE if part["name"] == "all" else {}
    best = {name: _best(part["rows"], name) for name in names}
    reach = max((row["metrics"][names[0]]["high"] or 0 for row in part["rows"]), default=0) or 1
    heads = ["", f"{spoken(names[0])} with interval", *(spoken(n) for n in names), *seen.values()]
    body: list[Markup] = []
    for kind, title in _GROUPS.items():
        rows = [row for row in part["rows"] if row["kind"] == kind]
        if rows:
            body.append(_group(title, len(heads)))
        for row in rows:
            exposure = {key: report["exposure"][row["name"]][key] for key in seen}
            body.append(_metric_row(row, names, best, reach, exposure))
    return scroll_table(
        heads, body, caption=f"{part['title']}, {part['queries']:,} queries, percent"
    )


def difference_table(report: dict[str, Any], part: dict[str, Any]) -> Markup:
    """``main`` minus every other row in the first metric, with its interval around zero."""
    metric = metric_names(tuple(report["ks"]))[0]
    gaps = [(entry["name"], entry["metrics"][metric]) for entry in part["differences"]]
    gaps = [(name, gap) for name, gap in gaps if gap["mean"] is not None]
    reach = max((abs(gap[end]) for _, gap in gaps for end in ("low", "high")), default=0) or 1
    body = [_difference_row(name, gap, reach) for name, gap in gaps]
    heads = ["main minus", "with interval", "points", "interval", "Wilcoxon p", "detectable"]
    return scroll_table(heads, body, caption=f"Difference of {spoken(metric)}, paired by query")


def _metric_row(
    row: dict[str, Any],
    names: list[str],
    best: dict[str, float],
    reach: float,
    exposure: dict[str, float],
) -> Markup:
    first = row["metrics"][names[0]]
    kind = "main" if row["name"] == MAIN else row["kind"]
    cells = [_plot(first, (0, reach), kind)]
    for name in names:
        metric = row["metrics"][name]
        is_best = row["kind"] != "control" and metric["mean"] == best[name]
        spread = f" ± {percent(metric['sd'])}" if metric["sd"] is not None else ""
        value = tag("b", percent(metric["mean"])) if is_best else percent(metric["mean"])
        cells.append(tag("td", value, tag("small", spread), title=_ends(metric)))
    for key, value in exposure.items():
        cells.append(tag("td", f"{value:.1f}" if key == "hub_skew" else percent(value)))
    return tag("tr", tag("th", row["name"], scope="row"), *cells, class_=kind)


def _difference_row(name: str, gap: dict[str, Any], reach: float) -> Markup:
    verdict = "level"
    if gap["clear"]:
        verdict = "ahead" if gap["mean"] > 0 else "behind"
    ends = f"{percent(gap['low'], sign=True)} to {percent(gap['high'], sign=True)}"
    p_value = "< 0.001" if gap["p_value"] < 0.001 else f"{gap['p_value']:.3f}"
    return tag(
        "tr",
        tag("th", name, scope="row"),
        _plot(gap, (-reach, reach), verdict),
        tag("td", percent(gap["mean"], sign=True), tag("small", f" {verdict}")),
        tag("td", ends),
        tag("td", p_value),
        tag("td", percent(gap["detectable"])),
        class_=verdict,
    )


def _plot(metric: dict[str, Any], within: tuple[float, float], kind: str) -> Markup:
    if metric["mean"] is None:
        return tag("td", "", class_="plotcell")
    ends = metric["low"], metric["mean"], metric["high"]
    return tag("td", interval_track(*ends, within=within, kind=kind), class_="plotcell")


def _group(title: str, columns: int) -> Markup:
    return tag(
        "tr", tag("th", tag("span", title), colspan=columns, scope="colgroup"), class_="group"
    )


def _best(rows: list[dict[str, Any]], name: str) -> float:
    means = [row["metrics"][name]["mean"] for row in rows if row["kind"] != "control"]
    return max((mean for mean in means if mean is not None), default=float("nan"))


def _ends(metric: dict[str, Any]) -> str:
    return f"95 % interval {percent(metric['low'])} to {percent(metric['high'])}"
