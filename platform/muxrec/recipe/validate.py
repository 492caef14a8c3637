"""Plain values to typed recipes by pydantic, and pydantic's findings in muxrec's words."""

from __future__ import annotations

import dataclasses
import difflib
import json
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from muxrec.recipe.model import Recipe
from muxrec.recipe.syntax import Path_

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_WORDS = {
    "missing": "is required and was not given",
    "dataclass_type": "expected a mapping of keys",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "string_type": "expected text",
}


def to_recipe(value: Any) -> tuple[Recipe | None, list[tuple[Path_, str]]]:
    """The recipe that ``value`` spells, or None and every fault as ``(path, what)``.

    The value travels as JSON because pydantic's strict JSON mode is the wanted strictness: a list
    is a tuple, ``7`` is a float, and a string is never a number.
    """
    text = json.dumps(value, default=str)
    try:
        return _adapter().validate_json(text, strict=True), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        return None, [(tuple(e["loc"]), _describe(e)) for e in found]


@cache
def _adapter() -> TypeAdapter[Recipe]:
    _forbid_unknown_keys(Recipe)
    return TypeAdapter(Recipe)


def _forbid_unknown_keys(kind: Any) -> None:
    """Give every recipe dataclass pydantic's strict settings; the types import no pydantic."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        kind.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
        for hint in get_type_hints(kind).values():
            _forbid_unknown_keys(hint)
    for argument in get_args(kind):
        _forbid_unknown_keys(argument)


def _describe(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        return _unknown_key(tuple(error["loc"]))
    words = _WORDS.get(kind) or error["msg"].replace("Input should be", "expected")
    if kind == "missing":
        return words
    near = _nearest(error["input"], error.get("ctx", {}).get("expected", ""))
    return f"{words}, got {_shown(error['input'])}{near}"


def _unknown_key(path: Path_) -> str:
    known = [field.name for field in dataclasses.fields(_type_at(path[:-1]))]
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key; {hint}"


def _nearest(given: Any, expected: str) -> str:
    """``; did you mean X?`` where the given string is nearly one of a literal's quoted words."""
    words = expected.replace("'", " ").replace(",", " ").split()
    close = difflib.get_close_matches(given, words, n=1) if isinstance(given, str) else []
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _type_at(path: Path_) -> Any:
    kind: Any = Recipe
    for step in path:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            kind = get_type_hints(kind)[str(step)]
        else:
            kind = get_args(kind)[-1 if get_origin(kind) is dict else 0]
        if get_origin(kind) in (Union, UnionType):
            kind = next(k for k in get_args(kind) if k is not type(None))
    return kind
