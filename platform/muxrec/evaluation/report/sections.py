"""The report's sections, each a piece of markup; an empty one is left out of the page."""

from __future__ import annotations

from collections import Counter
from typing import Any

from muxrec.evaluation.report.charts import Series, bar_chart, line_chart
from muxrec.evaluation.report.markup import Markup, join, tag
from muxrec.evaluation.report.tables import difference_table, metric_table
from muxrec.evaluation.results import percent, spoken
from muxrec.evaluation.study import MAIN
from muxrec.evaluation.summary import metric_names

NOTHING = Markup("")
_BINS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


def header(report: dict[str, Any]) -> Markup:
    """Title, the main row's headline numbers and the notes."""
    notes = tag("ul", *(tag("li", note) for note in report["notes"]), class_="notes")
    period = "the test period" if report["split"] == "test" else "the validation period"
    lead = (
        f"Item-to-item results on {period}: {report['items']:,} items, the whole catalogue ranked."
    )
    return tag(
        "header",
        tag(
            "div",
            tag("h1", report["name"]),
            tag("p", lead, class_="lead"),
            tag("div", *_tiles(report), class_="tiles"),
            notes,
        ),
    )


def results(report: dict[str, Any]) -> Markup:
    """Metric and difference tables of every slice of every ground truth."""
    parts = [tag("h2", "Results"), tag("p", _how_to_read(), class_="hint")]
    for at, truth in enumerate(report["truths"]):
        if len(report["truths"]) > 1:
            parts.append(tag("h3", truth["name"].replace("_", " ").capitalize()))
        panels = [
            tag(
                "div",
                metric_table(report, part),
                difference_table(report, part) if part["differences"] else NOTHING,
                id=f"slice-{at}-{part['name']}",
                data_title=part["title"].split(":")[0],
            )
            for part in truth["slices"]
        ]
        parts.append(tag("div", *panels, data_tabs=True))
    return join(*parts)


def widths(report: dict[str, Any]) -> Markup:
    """Recall of the prefixes that a Matryoshka head was trained for."""
    if len(report["widths"]) < 2:
        return NOTHING
    names = [f"recall_at_{k}" for k in report["ks"]]
    series = [
        Series(spoken(n), [(w["width"], 100 * w["metrics"][n]["mean"]) for w in report["widths"]])
        for n in names
    ]
    label = "Recall by vector width: " + "; ".join(
        f"{w['width']} numbers {percent(w['metrics'][names[0]]['mean'])} {spoken(names[0])}"
        for w in report["widths"]
    )
    return join(
        tag("h2", "Recall by width"),
        tag("p", "A prefix of the vector, made unit length again, in percent.", class_="hint"),
        line_chart(series, label=label, x_name="width (log scale)", log_x=True),
    )


def neighbours(browser: dict[str, Any] | None) -> Markup:
    """The neighbour browser's frame; the script fills it from the data in the page."""
    if not browser or not browser["queries"]:
        return NOTHING
    finder = tag(
        "div",
        tag("label", "Search by title · ", tag("span", "", id="found"), for_="finder"),
        tag(
            "input",
            id="finder",
            type="search",
            autocomplete="off",
            role="combobox",
            aria_expanded="true",
            aria_controls="options",
            placeholder="type, then ↓ and ↑",
        ),
        tag("ul", "", id="options", role="listbox", aria_label="Items"),
        class_="finder",
    )
    result = tag(
        "div",
        tag("div", "", id="chosen", class_="shown", aria_live="polite"),
        tag("ol", "", id="neighbours-list", aria_label="Neighbours, best first"),
    )
    hint = (
        "The ten nearest items by the main row's vectors, with their score. A hit is a neighbour "
        "that is among the query's relevant items. Cold items were in no training pair."
    )
    return join(
        tag("h2", "Neighbours"),
        tag("p", hint, class_="hint"),
        tag("div", finder, result, class_="browser"),
        tag("noscript", "The browser of neighbours needs JavaScript."),
    )


def hubs(report: dict[str, Any], shown: dict[str, list[int]]) -> Markup:
    """How often items appear in the top ten of others, for up to three rows."""
    if not shown:
        return NOTHING
    labels = [_bin_name(at) for at in range(len(_BINS))]
    series = [
        Series(name, [(at, share) for at, share in enumerate(_bin_shares(counts))])
        for name, counts in shown.items()
    ]
    skews = ", ".join(f"{name} {report['exposure'][name]['hub_skew']:.1f}" for name in shown)
    hint = (
        "In how many top ten lists does an item appear when every item is a query? Share of the "
        f"catalogue in percent. Many at 0 and a long tail are hubs. Skewness: {skews}."
    )
    label = "; ".join(
        f"{name}: {percent(1 - report['exposure'][name]['coverage_at_10'])} % never shown"
        for name in shown
    )
    chart = bar_chart(series, label=label, names=labels, x_name="lists that an item is in")
    return join(tag("h2", "Hubs and coverage"), tag("p", hint, class_="hint"), chart)


def training(histories: dict[int, list[dict[str, Any]]]) -> Markup:
    """Loss of the main row, and its validation metric where the training measured one."""
    charts = []
    losses = _curves(histories, "loss")
    if losses:
        last = ", ".join(f"{line.name} ends at {line.points[-1][1]:.3f}" for line in losses)
        label = f"Training loss: {last}"
        charts.append(
            tag("div", tag("h3", "Loss"), line_chart(losses, label=label, x_name="step", digits=2))
        )
    measured = {key for records in histories.values() for record in records for key in record}
    for name in sorted(key for key in measured if "ndcg_at" in key)[:1]:
        curves = _curves(histories, name)
        title = spoken(name.replace("validation_", "")) + " on the validation period"
        chart = line_chart(curves, label=title, x_name="step", digits=3)
        charts.append(tag("div", tag("h3", title), chart))
    if not charts:
        return NOTHING
    return join(tag("h2", "Training"), tag("div", *charts, class_="two"))


def facts(report: dict[str, Any]) -> Markup:
    """What the results were made of."""
    pairs = [
        join(tag("dt", name), tag("dd", str(value))) for name, value in report["facts"].items()
    ]
    return join(tag("h2", "Facts of the run"), tag("dl", *pairs))


def _tiles(report: dict[str, Any]) -> list[Markup]:
    if not report["truths"]:
        return []
    metric = metric_names(tuple(report["ks"]))[0]
    tiles = []
    for part in report["truths"][0]["slices"]:
        if part["name"] not in ("all", "warm", "cold"):
            continue
        rows = {row["name"]: row["metrics"][metric] for row in part["rows"]}
        own = rows.get(MAIN)
        if own is None:
            continue
        others = {
            r["name"]: rows[r["name"]]["mean"] or 0 for r in part["rows"] if r["kind"] == "baseline"
        }
        best = max(others, key=lambda name: others[name], default=None)
        more = f"{percent(own['low'])} to {percent(own['high'])}"
        if best:
            more += f" · best baseline {percent(others[best])} ({best})"
        what = f"{spoken(metric)}, {part['title'].split(':')[0].lower()}"
        tiles.append(_tile(what, percent(own["mean"]), more))
    seen = report["exposure"].get(MAIN)
    if seen:
        value = f"{percent(seen['coverage_at_10'])}"
        tiles.append(_tile("coverage@10", value, f"hub skew {seen['hub_skew']:.1f}"))
    return tiles


def _tile(what: str, value: str, more: str) -> Markup:
    return tag(
        "div",
        tag("div", what, class_="what"),
        tag("div", value, " ", tag("small", "%", class_="more"), class_="value"),
        tag("div", more, class_="more"),
        class_="tile",
    )


def _how_to_read() -> str:
    return (
        "Recall is hits over min(K, relevant items), in percent. The dot is the mean, the line its "
        "95 % bootstrap interval over queries, ± the standard deviation over seeds; bold is the "
        "best row that is not a control. Detectable is the smallest true difference that this "
        "many queries would show four times in five."
    )


def _curves(histories: dict[int, list[dict[str, Any]]], key: str) -> list[Series]:
    lines = []
    for seed, records in sorted(histories.items())[:6]:
        points = [
            (float(r["step"]), float(r[key]))
            for r in records
            if isinstance(r.get(key), int | float)
        ]
        if points:
            lines.append(Series(f"seed {seed}", points))
    return lines


def _bin_shares(counts: list[int]) -> list[float]:
    found = Counter(max(at for at, low in enumerate(_BINS) if count >= low) for count in counts)
    return [100 * found[at] / max(1, len(counts)) for at in range(len(_BINS))]


def _bin_name(at: int) -> str:
    low = _BINS[at]
    if at + 1 == len(_BINS):
        return f"{low}+"
    high = _BINS[at + 1] - 1
    return str(low) if high == low else f"{low}-{high}"
