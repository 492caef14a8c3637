"""Query strings of the GET routes, read strictly: unknown and repeated parameters are refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from muxrec_serving.errors import invalid
from muxrec_serving.limits import DEFAULT_K, MAX_FILTER_VALUES, MAX_K, MAX_QUERY_CHARS

Filter = tuple[tuple[str, frozenset[str]], ...]
"""Conditions that all must hold; each is a column and the values of which one must be present."""

_FLAGS = {"": True, "1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class Wanted:
    """What an answer holds.

    Attributes:
        k: Neighbours wanted, in ``[1, MAX_K]``.
        where: Attribute filter; empty for none.
        explain: Whether each neighbour tells how much of its score each modality gave.
        display: Whether each neighbour carries its display fields.
    """

    k: int = DEFAULT_K
    where: Filter = ()
    explain: bool = False
    display: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the answer depends on the item and ``k`` alone."""
        return not (self.where or self.explain or self.display)


@lru_cache(maxsize=4096)
def parse_similar(query: bytes) -> Wanted:
    """The query string of ``/similar``.

    Raises:
        RequestError: A parameter is unknown, repeated (``filter`` may be) or out of range.
    """
    pairs = parameters(query, once=("k", "explain", "display"), many=("filter",))
    single = {name: value for name, value in pairs if name != "filter"}
    return Wanted(
        k=parse_k(single["k"]) if "k" in single else DEFAULT_K,
        where=parse_filters([value for name, value in pairs if name == "filter"]),
        explain=_flag("explain", single.get("explain", "0")),
        display=_flag("display", single.get("display", "0")),
    )


def parse_title_query(query: bytes) -> tuple[str, int]:
    """Text and number of results of ``/v1/search``.

    Raises:
        RequestError: ``q`` is missing, empty or too long, or ``k`` is out of range.
    """
    single = dict(parameters(query, once=("q", "k"), many=()))
    text = single.get("q", "").strip()
    if not text:
        raise invalid("q must hold the text to look for, e.g. /v1/search?q=matrix")
    if len(text) > MAX_QUERY_CHARS:
        raise invalid(f"q may have {MAX_QUERY_CHARS} characters, got {len(text)}")
    return text, parse_k(single["k"]) if "k" in single else DEFAULT_K


def parameters(
    query: bytes, *, once: tuple[str, ...], many: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Decoded parameters in order.

    Raises:
        RequestError: A name is not in ``once`` or ``many``, or one of ``once`` comes twice.
    """
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FILTER_VALUES
        )
    except ValueError as error:
        raise invalid(f"the query string holds more than {MAX_FILTER_VALUES} parameters") from error
    names = [name for name, _ in pairs]
    for name in names:
        if name not in once + many:
            known = ", ".join(once + many)
            raise invalid(f"unknown parameter {name[:40]!r}: this route knows {known}")
        if name in once and names.count(name) > 1:
            raise invalid(f"{name} is given {names.count(name)} times: give it once")
    return pairs


def parse_k(value: str) -> int:
    """A number of results in ``[1, MAX_K]``.

    Raises:
        RequestError: It is no integer or out of range.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise invalid(f"k must be an integer in 1..{MAX_K}, got {value[:40]!r}", code="bad_k")
    return check_k(int(value), MAX_K)


def check_k(k: int, most: int) -> int:
    """``k`` itself.

    Raises:
        RequestError: It is not in ``[1, most]``.
    """
    if not 1 <= k <= most:
        raise invalid(f"k must be in 1..{most}, got {str(k)[:40]}", code="bad_k")
    return k


def parse_filters(values: list[str]) -> Filter:
    """``column:value[,value...]`` conditions; conditions are joined by AND, values by OR.

    Raises:
        RequestError: A condition has no column or no value.
    """
    conditions = []
    for value in values:
        column, colon, wanted = value.partition(":")
        choices = frozenset(part for part in wanted.split(",") if part)
        if not (column and colon and choices):
            raise invalid(
                f"filter must read column:value or column:value,value, got {value[:80]!r}",
                code="bad_filter",
            )
        conditions.append((column, choices))
    return tuple(conditions)


def _flag(name: str, value: str) -> bool:
    if value not in _FLAGS:
        raise invalid(f"{name} must be 1, true, 0 or false, got {value[:40]!r}")
    return _FLAGS[value]
