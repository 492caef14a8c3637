"""What every page is made of: one HTML file with its style and script inside, wide tables."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from muxrec.evaluation.report.markup import Markup, join, tag

_HERE = Path(__file__).parent


def html_document(title: str, *, header: Markup, blocks: dict[str, tuple[str, Markup]]) -> str:
    """A whole page that fetches nothing.

    The content policy allows this page's own style and script by their hashes and pictures that are
    inside the page; everything else is refused by the browser.

    Args:
        title: Title of the window.
        header: What stands above the links to the sections.
        blocks: Name -> title of the link and content; an empty content leaves a section out.
    """
    style, script = _read("style.css"), _read("script.js")
    kept = {name: block for name, block in blocks.items() if block[1]}
    links = [tag("li", tag("a", text, href=f"#{name}")) for name, (text, _) in kept.items()]
    body = join(
        header,
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *(tag("section", block, id=name) for name, (_, block) in kept.items())),
        tag("script", script),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("title", title),
        tag("style", style),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def scroll_table(heads: Sequence[str], body: Sequence[Markup], *, caption: str) -> Markup:
    """A table that scrolls sideways on a narrow screen; ``body`` are its rows."""
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _read(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    sources = f"script-src {_hash(script)}; style-src {_hash(style)}; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
