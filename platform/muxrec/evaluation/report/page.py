"""The page of an evaluation: its sections put together."""

from __future__ import annotations

from typing import Any

from muxrec.evaluation.report import sections
from muxrec.evaluation.report.document import html_document
from muxrec.evaluation.report.markup import join, json_block


def report_page(
    report: dict[str, Any],
    *,
    browser: dict[str, Any] | None,
    shown: dict[str, list[int]],
    histories: dict[int, list[dict[str, Any]]],
) -> str:
    """The whole report as one HTML file that fetches nothing.

    Args:
        report: The body of ``metrics.json``.
        browser: Data of the neighbour browser; None leaves it out.
        shown: Row -> N_10 of every item.
        histories: Seed -> records of ``history.jsonl`` of the main row.
    """
    neighbours = sections.neighbours(browser)
    if browser and neighbours:
        neighbours = join(neighbours, json_block("neighbour-data", browser))
    blocks = {
        "results": ("Results", sections.results(report)),
        "widths": ("Widths", sections.widths(report)),
        "neighbours": ("Neighbours", neighbours),
        "hubs": ("Hubs", sections.hubs(report, shown)),
        "training": ("Training", sections.training(histories)),
        "facts": ("Facts", sections.facts(report)),
    }
    return html_document(
        f"{report['name']}: results", header=sections.header(report), blocks=blocks
    )
