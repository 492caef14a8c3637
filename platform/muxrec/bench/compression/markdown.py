"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from muxrec.bench.compression.summary import Entry, Frontier
from muxrec.bench.compression.verdict import label, level_with, percent, span, verdicts
from muxrec.bench.report import Table

HEADS = (
    "method",
    "budget",
    "real share",
    "quality",
    "minus full",
    "training bytes",
    "serving bytes",
    "of which dictionary",
    "ms per step",
    "rate",
    "best epoch",
    "seeds",
)


def markdown_report(frontier: Frontier, facts: Mapping[str, str]) -> str:
    """Facts, the best per budget, and every method at every budget, losses against full included.

    Args:
        frontier: What was measured.
        facts: Name -> sentence.
    """
    first = frontier.first
    lines = [
        "<!-- written by `muxrec bench compression`; do not edit -->",
        "",
        f"# Compression: {first.task} on {first.data}",
        "",
        *(f"- **{name}**: {text}" for name, text in facts.items()),
    ]
    tables = [best_table(frontier), entry_table(frontier)]
    tables += [refused_table(frontier)] if frontier.refused else []
    said = ["## What to take", "", *(f"- {line}" for line in verdicts(frontier)), ""]
    return "\n".join([*lines, "", *said, *(table.markdown() for table in tables)])


def best_table(frontier: Frontier) -> Table:
    """The best of all that are within every budget, and who cannot be told from it."""
    whole = frontier.whole_bytes
    rows = []
    for budget in frontier.budgets:
        if not (found := frontier.within(budget)):
            continue
        best = found[0]
        level = [label(entry, budget) for entry in level_with(frontier, budget)]
        rows.append(
            (
                percent(budget),
                "" if whole is None else f"{budget * whole:,.0f}",
                label(best, budget),
                span(best.quality),
                f"{best.limited_bytes:,.0f}",
                f"{best.serving_bytes:,.0f}",
                ", ".join(level) or "none",
            )
        )
    metric = frontier.first.metric
    return Table(
        "Best per budget",
        f"Best mean {metric} on the test part among all whose real bytes, without the dictionary "
        "of ids, are within the budget (1 % more is tolerated), whatever they were asked for. "
        "Level: the interval of the paired difference to the best includes zero, or there is one "
        "seed only.",
        ("budget", "bytes", "best", metric, "its bytes", "with dictionary", "level with it"),
        tuple(rows),
    )


def entry_table(frontier: Frontier) -> Table:
    """Every method at every budget; the quality of full tables is subtracted seed by seed."""
    heads = tuple(frontier.first.metric if head == "quality" else head for head in HEADS)
    names = frontier.first.others
    rows = tuple(
        (*entry_cells(entry), *(f"{_mean(entry, name):.4f}" for name in names))
        for entry in frontier.entries
    )
    note = "Mean over seeds with half its 95 % interval; sizes in bytes of real tensors."
    return Table("All methods", note, (*heads, *names), rows)


def refused_table(frontier: Frontier) -> Table:
    """Methods that cannot have a budget, and why."""
    rows = [(name, percent(budget), why) for (name, budget), why in frontier.refused.items()]
    note = "Nothing was trained for these."
    return Table("Not possible", note, ("method", "budget", "reason"), tuple(rows))


def entry_cells(entry: Entry) -> tuple[str, ...]:
    """An entry's values as text, in the order of ``HEADS``."""
    return (
        entry.method,
        percent(entry.budget),
        "" if entry.share is None else percent(entry.share),
        span(entry.quality),
        "" if entry.against_full is None else span(entry.against_full, sign=True),
        f"{entry.training_bytes:,.0f}",
        f"{entry.serving_bytes:,.0f}",
        f"{entry.dictionary_bytes:,.0f}",
        f"{entry.step_ms:.2f}",
        f"{entry.results[0].optimizer}:{entry.results[0].table_lr:g}",
        entry.epochs,
        str(entry.quality.seeds),
    )


def _mean(entry: Entry, name: str) -> float:
    return sum(result.others[name] for result in entry.results) / len(entry.results)
