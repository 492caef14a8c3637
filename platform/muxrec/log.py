"""Log lines: one event, one line, ``event key=value``. Only the CLI installs a handler."""

from __future__ import annotations

import json
import logging
import sys

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:/@%")


def event(name: str, **values: object) -> str:
    """One log line: ``event("epoch", n=3, loss=0.25)`` is ``epoch n=3 loss=0.25``.

    Floats keep four significant digits, and texts with blanks or quotes are quoted as in JSON, so
    that the line can be taken apart again.
    """
    return " ".join([name, *(f"{key}={_shown(value)}" for key, value in values.items())])


def install_handler(*, level: int = logging.INFO) -> None:
    """Send muxrec's log lines to stderr; a second call replaces the first one's handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s %(message)s"))
    handler.set_name("muxrec.cli")
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "muxrec.cli"]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name in ("muxrec", "muxrec_jobs", "muxrec_serving", "muxrec_kernels"):
        logging.getLogger(name).setLevel(level)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if text and _PLAIN.issuperset(text):
        return text
    # Unicode has line ends of its own (U+0085, U+2028): escape whatever is not printable.
    return json.dumps(text, ensure_ascii=not text.isprintable())
