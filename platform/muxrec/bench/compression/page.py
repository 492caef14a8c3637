"""The report as one page: frontiers over training and serving bytes, every method, every loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from muxrec.bench.compression.markdown import HEADS, best_table, entry_cells, refused_table
from muxrec.bench.compression.summary import FULL, Entry, Frontier
from muxrec.bench.compression.verdict import verdicts
from muxrec.bench.report import Table
from muxrec.evaluation.report.charts import Series, interval_track, line_chart
from muxrec.evaluation.report.document import html_document, scroll_table
from muxrec.evaluation.report.markup import Markup, join, tag

LINES = 6
"""Lines that one chart can tell apart: the colours of the style."""

Bytes = Callable[[Entry], float]


def html_report(frontier: Frontier, facts: Mapping[str, str]) -> str:
    """The whole report as one HTML file that fetches nothing."""
    first = frontier.first
    lead = f"{first.metric} of click prediction" if first.task == "click" else first.metric
    header = tag(
        "header",
        tag(
            "div",
            tag("h1", f"Compression: {first.task} on {first.data}"),
            tag("p", f"{lead} against the bytes of the embedding tables.", class_="lead"),
            tag(
                "ul",
                tag("li", f"Label: {first.label_rule}."),
                tag("li", f"Split: {first.split_rule}."),
                tag("li", f"Seeds: {facts['seeds']}."),
                class_="notes",
            ),
        ),
    )
    blocks = {
        "frontier": ("Frontier", _frontiers(frontier)),
        "best": ("Best per budget", _best(frontier)),
        "methods": ("Method by method", _methods(frontier)),
        "results": ("All results", _results(frontier)),
        "refused": ("Not possible", _refused(frontier)),
        "facts": ("Facts", _facts(facts)),
    }
    return html_document(f"compression: {first.data}", header=header, blocks=blocks)


def _frontiers(frontier: Frontier) -> Markup:
    shown = _shown(frontier)
    left_out = [method for method in frontier.methods if method not in shown]
    hint = "Up and to the left is better. Whiskers are 95 % intervals over seeds."
    if left_out:
        hint += (
            f" Lines: full tables and the best by mean place; {', '.join(left_out)} stand in the "
            "sections below."
        )
    views: dict[str, Bytes] = {
        "Training bytes": lambda entry: entry.training_bytes,
        "Serving bytes": lambda entry: entry.serving_bytes,
    }
    charts = [
        tag("div", tag("h3", title), _chart(frontier, shown, size, title))
        for title, size in views.items()
    ]
    return join(
        tag("h2", f"{frontier.first.metric} against bytes"),
        tag("p", hint, class_="hint"),
        tag("div", *charts, class_="two"),
    )


def _chart(frontier: Frontier, methods: list[str], size: Bytes, title: str) -> Markup:
    series = [_series(frontier.of(method), size) for method in methods]
    metric = frontier.first.metric
    label = f"{metric} by {title.lower()}: " + "; ".join(
        f"{entry.method} {size(entry):,.0f} bytes {entry.quality.mean:.4f}"
        for method in methods
        for entry in frontier.of(method)
    )
    return line_chart(series, label=label, x_name="bytes (log scale)", digits=4, log_x=True)


def _series(entries: list[Entry], size: Bytes) -> Series:
    rising = sorted(entries, key=size)
    points = [(size(entry), entry.quality.mean) for entry in rising]
    spans = [(entry.quality.low, entry.quality.high) for entry in rising]
    return Series(entries[0].method, points, spans)


def _shown(frontier: Frontier) -> list[str]:
    """Full tables first where they were measured, then the best by mean place."""
    ranked = frontier.ranked()
    first = [method for method in ranked if method == FULL]
    return [*first, *(method for method in ranked if method != FULL)][:LINES]


def _best(frontier: Frontier) -> Markup:
    said = tag("ul", *(tag("li", line) for line in verdicts(frontier)), class_="notes")
    table = best_table(frontier)
    # Who is level is a long list: the sentences below hold it.
    short = replace(table, columns=table.columns[:-1], rows=tuple(row[:-1] for row in table.rows))
    return join(_plain(short), said)


def _plain(table: Table) -> Markup:
    body = [
        tag("tr", tag("th", str(row[0]), scope="row"), *(tag("td", str(cell)) for cell in row[1:]))
        for row in table.rows
    ]
    shown = scroll_table(table.columns, body, caption=table.title)
    return join(tag("h2", table.title), tag("p", table.note, class_="hint"), shown)


def _methods(frontier: Frontier) -> Markup:
    """Every method beside the best of all methods at each budget."""
    bests = _bests(frontier)
    charts = []
    for method in frontier.methods:
        entries = frontier.of(method)
        envelope = _series(bests, lambda entry: entry.serving_bytes)
        series = [
            _series(entries, lambda entry: entry.serving_bytes),
            Series("best at each budget", envelope.points),
        ]
        label = f"{method}: " + "; ".join(
            f"{entry.serving_bytes:,.0f} bytes {entry.quality.mean:.4f}" for entry in entries
        )
        charts.append(
            line_chart(
                series, label=label, x_name="serving bytes (log scale)", digits=4, log_x=True
            )
        )
    return join(tag("h2", "Method by method"), tag("div", *charts, class_="two"))


def _bests(frontier: Frontier) -> list[Entry]:
    """The best within every budget, each once."""
    found = [entries[0] for budget in frontier.budgets if (entries := frontier.within(budget))]
    return [entry for at, entry in enumerate(found) if entry not in found[:at]]


def _results(frontier: Frontier) -> Markup:
    gaps = [entry.against_full for entry in frontier.entries if entry.against_full]
    reach = max((abs(end) for gap in gaps for end in (gap.low, gap.high)), default=0) or 1
    best = _bests(frontier)
    body = [_row(entry, reach, is_best=entry in best) for entry in frontier.entries]
    heads = ["method", "minus full, with interval", *HEADS[1:]]
    heads = [frontier.first.metric if head == "quality" else head for head in heads]
    hint = "Marked: the best within a budget. Red: behind full tables, its interval below zero."
    table = scroll_table(heads, body, caption=f"{frontier.first.metric}, mean over seeds")
    return join(tag("h2", "All results"), tag("p", hint, class_="hint"), table)


def _row(entry: Entry, reach: float, *, is_best: bool) -> Markup:
    name, *cells = entry_cells(entry)
    gap, plot = entry.against_full, Markup("")
    if gap is not None:
        ahead = "ahead" if gap.mean > 0 else "behind"
        kind = ahead if gap.is_clear else "level"
        plot = interval_track(gap.low, gap.mean, gap.high, within=(-reach, reach), kind=kind)
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", plot, class_="plotcell"),
        *(tag("td", cell) for cell in cells),
        class_="main" if is_best else None,
    )


def _refused(frontier: Frontier) -> Markup:
    return _plain(refused_table(frontier)) if frontier.refused else Markup("")


def _facts(facts: Mapping[str, str]) -> Markup:
    pairs = [join(tag("dt", name), tag("dd", text)) for name, text in facts.items()]
    return join(tag("h2", "Facts"), tag("dl", *pairs))
