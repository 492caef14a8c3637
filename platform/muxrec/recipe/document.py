"""A recipe before it is checked: plain values, and who wrote each of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from muxrec.errors import RecipeError
from muxrec.recipe.syntax import Path_, parse


class Document:
    """The values of a recipe file with its overrides, and the faults found so far.

    Attributes:
        value: Plain mappings, lists and scalars.
        faults: One line per fault, each led by where it is.
    """

    def __init__(self, path: Path, overrides: Iterable[str] = ()) -> None:
        self.faults: list[str] = []
        self._file = str(path)
        self.value, lines, doubled = _read(path)
        self._origins: dict[Path_, str] = {at: f"{path}:{line}" for at, line in lines.items()}
        for at, line, what in doubled:
            self.faults.append(f"{path}:{line}: {dotted(at)}: {what}")
        if not isinstance(self.value, dict):
            kind = type(self.value).__name__
            raise RecipeError(f"{path}:1: expected a mapping with name, data, features, got {kind}")
        for override in overrides:
            self._override(override)

    def blame(self, path: Path_, what: str) -> None:
        """Add a fault at ``path``: its line, or its parent's where the key itself is missing."""
        known = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in self._origins)
        self.faults.append(f"{self._origins[known]}: {dotted(path)}: {what}")

    def raise_faults(self) -> None:
        """Raise RecipeError with one line per fault, if there is any."""
        if self.faults:
            raise RecipeError("\n".join(dict.fromkeys(self.faults)))

    def _override(self, text: str) -> None:
        key, equals, raw = text.partition("=")
        origin = f"--set {text}"
        if not equals or not key:
            self.faults.append(f"{origin}: expected KEY=VALUE such as train.lr=3e-4")
            return
        try:
            value, _, _ = parse(raw)
            path = _place(self.value, key.split("."), value)
        except yaml.YAMLError as error:
            self.faults.append(f"{origin}: not valid YAML: {_problem(error)}")
            return
        except LookupError as error:
            self.faults.append(f"{origin}: {error}")
            return
        self._origins = {at: o for at, o in self._origins.items() if at[: len(path)] != path}
        for n in range(1, len(path)):
            self._origins.setdefault(path[:n], origin)
        self._origins[path] = origin


def dotted(path: Path_) -> str:
    """``tables.0.rows`` for ``("tables", 0, "rows")``."""
    return ".".join(str(part) for part in path) or "recipe"


def _read(path: Path) -> tuple[Any, dict[Path_, int], list[tuple[Path_, int, str]]]:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read as a recipe: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise RecipeError(f"{path}:{line}: not valid YAML: {_problem(error)}") from error


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _place(root: Any, keys: list[str], value: Any) -> Path_:
    """Put ``value`` at ``keys`` below ``root``; returns the path, with numbers for list entries."""
    path: list[str | int] = []
    node = root
    for depth, key in enumerate(keys):
        step = _step(node, key, at=tuple(path))
        path.append(step)
        if depth == len(keys) - 1:
            node[step] = value
        elif isinstance(node, dict):
            node[step] = {} if node.get(step) is None else node[step]
        node = node[step]
    return tuple(path)


def _step(node: Any, key: str, *, at: Path_) -> str | int:
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise LookupError(  # noqa: TRY004 - a path that leads nowhere, as below
            f"{dotted(at)} is a single value, {key} cannot be set below it"
        )
    if not key.isdigit() or int(key) >= len(node):
        raise LookupError(f"{dotted(at)} has entries 0 to {len(node) - 1}, there is no {key}")
    return int(key)
