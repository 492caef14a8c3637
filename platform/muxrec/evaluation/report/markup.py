"""HTML that cannot be injected: text is escaped unless it is markup already."""

from __future__ import annotations

import html
import json
from typing import Any

_VOID = ("circle", "input", "line", "meta", "path", "rect")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """One element.

    Args:
        name: Element name.
        children: Plain text is escaped, ``Markup`` is kept.
        attributes: ``class_`` becomes ``class`` and ``aria_label`` ``aria-label``; True gives a
            bare attribute, None and False give none.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        parts.append(spelled if value is True else f'{spelled}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    if name in _VOID and not children:
        return Markup(opening if name in ("input", "meta") else f"{opening[:-1]}/>")
    return Markup(f"{opening}{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children after one another, plain text escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children))


def json_block(name: str, value: Any) -> Markup:
    """A ``script`` element that holds JSON as data and never runs.

    ``<`` is written as an escape, so no title can close the element.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f'<script type="application/json" id="{html.escape(name)}">{body}</script>')
