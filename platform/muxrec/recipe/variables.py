"""Environment variables in a recipe's paths: ``${VAR}`` and ``${VAR:-default}``."""

from __future__ import annotations

import os
import re
from pathlib import Path

DATA_VARIABLE = "MUXREC_DATA"
DATA_FALLBACK = Path("../shared/data")
"""Where the public data sets lie beside a checkout when the variable is not set."""

PATH_FIELDS = (
    ("data", "source", "path"),
    ("data", "source", "interactions", "path"),
    ("data", "source", "items", "path"),
    ("features", "*", "encoder"),
    ("evaluation", "untrained_text"),
    ("output",),
    ("tracking", "uri"),
)
"""The fields that are paths; ``*`` stands for every list entry."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(text: str) -> str:
    """``text`` with each variable's value in its place; ``$${`` gives a plain ``${``.

    Raises:
        LookupError: A variable without default is not set.
    """
    return _REFERENCE.sub(_value, text)


def escape(text: str) -> str:
    """The spelling that ``expand`` turns into ``text``."""
    return text.replace("${", "$${")


def _value(match: re.Match[str]) -> str:
    name, default = match.group(1), match.group(2)
    if name is None:
        return "${"
    if name in os.environ:
        return os.environ[name]
    if default is not None:
        return default
    if name == DATA_VARIABLE and DATA_FALLBACK.is_dir():
        return str(DATA_FALLBACK.resolve())
    raise LookupError(f"the environment variable {name} is not set: export {name}=FOLDER first")
