"""Recipes from and to YAML: every fault at once, each with its file and line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from muxrec.manifest import digest_of
from muxrec.recipe.checks import check_recipe
from muxrec.recipe.document import Document
from muxrec.recipe.model import Recipe
from muxrec.recipe.syntax import Path_, write
from muxrec.recipe.validate import to_recipe
from muxrec.recipe.variables import PATH_FIELDS, escape, expand

NOT_HASHED = ("output", "tracking")
"""Sections that say where results go, not what they are."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a YAML file, checked as a whole.

    ``${VAR}`` and ``${VAR:-default}`` are replaced in the fields that are paths; relative paths
    stay relative to the current folder.

    Args:
        path: YAML file.
        overrides: ``key.path=value`` texts, applied in order; values are YAML, list entries are
            numbers (``features.0.probes=2``).

    Raises:
        RecipeError: One line per fault: ``file:line: path: what`` or ``--set k=v: path: what``.
    """
    document = Document(Path(path), overrides)
    for entry in _mappings(document.value.get("features")):
        if isinstance(entry.get("columns"), str):
            entry["columns"] = [entry["columns"]]
    for holder, key, at in _path_fields(document.value):
        try:
            holder[key] = expand(holder[key])
        except LookupError as error:
            document.blame(at, str(error))
    recipe, faults = to_recipe(document.value)
    for at, what in faults if recipe is None else check_recipe(recipe):
        document.blame(at, what)
    document.raise_faults()
    if recipe is None:
        raise AssertionError("a recipe without faults has a value")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """YAML text that ``load_recipe`` reads back as an equal recipe."""
    value = _plain(dataclasses.asdict(recipe))
    for holder, key, _ in _path_fields(value):
        holder[key] = escape(holder[key])
    return write(value)


def recipe_hash(recipe: Recipe, *sections: str) -> str:
    """Hex SHA-256 of a recipe's resolved values, defaults included.

    Args:
        recipe: Any recipe.
        sections: Top-level keys such as ``"data"``; none for everything that decides a result,
            which leaves out ``output`` and ``tracking``.
    """
    value = dataclasses.asdict(recipe)
    chosen = sections or [key for key in value if key not in NOT_HASHED]
    return digest_of({key: value[key] for key in chosen})


def output_folder(recipe: Recipe) -> Path:
    """Where the run's files go: ``recipe.output`` or ``runs/<name>``."""
    return Path(recipe.output or f"runs/{recipe.name}")


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _path_fields(value: Any) -> Iterator[tuple[Any, str | int, Path_]]:
    for pattern in PATH_FIELDS:
        yield from _matches(value, pattern, ())


def _matches(
    node: Any,
    pattern: tuple[str, ...],
    at: Path_,
) -> Iterator[tuple[Any, str | int, Path_]]:
    head, rest = pattern[0], pattern[1:]
    steps: list[Any] = [head] if isinstance(node, dict) and head in node else []
    if head == "*" and isinstance(node, list):
        steps = list(range(len(node)))
    for step in steps:
        if rest:
            yield from _matches(node[step], rest, (*at, step))
        elif isinstance(node[step], str):
            yield node, step, (*at, step)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
