"""The page: sections put together, style and script inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from muxrec.evaluation.report import sections
from muxrec.evaluation.report.markup import Markup, join, json_block, tag

_HERE = Path(__file__).parent


def report_page(
    report: dict[str, Any],
    *,
    browser: dict[str, Any] | None,
    shown: dict[str, list[int]],
    histories: dict[int, list[dict[str, Any]]],
) -> str:
    """The whole report as one HTML file.

    The content policy allows this page's own script and style by their hashes and pictures that are
    inside the page; everything else is refused by the browser.

    Args:
        report: The body of ``metrics.json``.
        browser: Data of the neighbour browser; None leaves it out.
        shown: Row -> N_10 of every item.
        histories: Seed -> records of ``history.jsonl`` of the main row.
    """
    style, script = _read("style.css"), _read("script.js")
    blocks = {
        "results": ("Results", sections.results(report)),
        "widths": ("Widths", sections.widths(report)),
        "neighbours": ("Neighbours", sections.neighbours(browser)),
        "hubs": ("Hubs", sections.hubs(report, shown)),
        "training": ("Training", sections.training(histories)),
        "facts": ("Facts", sections.facts(report)),
    }
    kept = {name: block for name, block in blocks.items() if block[1]}
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, (title, _) in kept.items()]
    body = join(
        sections.header(report),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *(tag("section", block, id=name) for name, (_, block) in kept.items())),
        json_block("neighbour-data", browser) if browser else Markup(""),
        tag("script", script),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("title", f"{report['name']}: results"),
        tag("style", style),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _read(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    sources = f"script-src {_hash(script)}; style-src {_hash(style)}; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
