"""Sparse features: catalogue columns to bags of raw 64-bit ids."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from muxrec.data.keys import positions_of
from muxrec.errors import DataError
from muxrec.features.arrays import Jagged
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import Int64Array, string_ids

_WORD = re.compile(r"[^\W_]+")
LIST_SEPARATOR = "|"


def raw_ids(values: Sequence[object], *, as_integers: bool) -> Int64Array:
    """Raw ids of non-null values, int64 ``[N]``: integers as they are, strings by XXH64.

    Args:
        values: Values of one column.
        as_integers: Whether the column held integers when the features were prepared.

    Raises:
        DataError: An integer was expected and something else came.
    """
    if not as_integers:
        return string_ids([str(value) for value in values])
    try:
        return np.array([int(value) for value in values], dtype=np.int64)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"an integer id was expected: {error}") from error


def words_of(text: str, ngrams: tuple[int, ...] = ()) -> list[str]:
    """Lower-case words of ``text``, then their character n-grams, each once, in order of sight.

    An n-gram is written ``~gram`` and taken over ``<word>``, so it never equals a word.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    framed = [f"<{word}>" for word in words]
    grams = (
        f"~{word[i : i + size]}"
        for size in ngrams
        for word in framed
        for i in range(len(word) - size + 1)
    )
    return list(dict.fromkeys([*words, *grams]))


def joined_text(row: Iterable[object]) -> str:
    """The texts of one item's columns, lists joined by a space; empty when all are missing."""
    parts = []
    for value in row:
        if isinstance(value, (list, tuple)):
            parts.append(" ".join(str(element) for element in value))
        elif value is not None:
            parts.append(str(value))
    return " ".join(part.strip() for part in parts if part.strip())


def list_values(value: object) -> list[Any]:
    """Elements of a list column's value; a string is split at ``|``; null gives none."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(LIST_SEPARATOR) if part.strip()]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [element for element in value if element is not None]
    return [value]


def bags_of(feature: FeatureSpec, columns: list[list[Any]], *, as_integers: bool) -> Jagged:
    """Bags of one sparse feature, uncut.

    Args:
        feature: An ``id``, ``bag``, ``tokens`` or ``number`` feature.
        columns: The feature's columns, each a list of C Python values.
        as_integers: Whether an ``id`` or ``bag`` column holds integer ids.

    Returns:
        One bag per item; a missing value is an empty bag.

    Raises:
        DataError: A value is not of the feature's kind; the feature is named.
    """
    try:
        if feature.kind == "number":
            return _number_bags(columns[0], feature.boundaries)
        if feature.kind == "tokens":
            rows = zip(*columns, strict=True)
            return _string_bags([words_of(joined_text(row), feature.ngrams) for row in rows])
        lists = [list_values(value) for value in columns[0]]
        if feature.kind == "id":
            lists = [values[:1] for values in lists]
        flat = [value for values in lists for value in values]
        return Jagged(raw_ids(flat, as_integers=as_integers), _offsets([len(v) for v in lists]))
    except DataError as error:
        raise DataError(f"feature {feature.name} ({feature.columns[0]}): {error}") from error


def cut_bags(bags: Jagged, length: int) -> tuple[Jagged, int]:
    """Bags with their first ``length`` ids, and how many ids were cut off."""
    lengths = np.diff(bags.offsets)
    within = np.arange(len(bags.ids)) - np.repeat(bags.offsets[:-1], lengths)
    kept = within < length
    return Jagged(bags.ids[kept], _offsets(np.minimum(lengths, length))), int((~kept).sum())


def keep_known(bags: Jagged, known_ids: Int64Array) -> Jagged:
    """Bags without the ids that are not in ``known_ids`` (int64, sorted)."""
    kept = positions_of(bags.ids, known_ids) >= 0
    item = np.repeat(np.arange(len(bags.offsets) - 1), np.diff(bags.offsets))
    lengths = np.bincount(item[kept], minlength=len(bags.offsets) - 1)
    return Jagged(bags.ids[kept], _offsets(lengths))


def _string_bags(lists: list[list[str]]) -> Jagged:
    distinct = list(dict.fromkeys(word for words in lists for word in words))
    ids = dict(zip(distinct, string_ids(distinct).tolist(), strict=True))
    flat = np.array([ids[word] for words in lists for word in words], dtype=np.int64)
    return Jagged(flat, _offsets([len(words) for words in lists]))


def _number_bags(values: list[Any], boundaries: tuple[float, ...]) -> Jagged:
    try:
        numbers = np.array([np.nan if v is None or v == "" else float(v) for v in values])
    except (TypeError, ValueError) as error:
        raise DataError(f"a number was expected: {error}") from error
    present = ~np.isnan(numbers)
    bins = np.searchsorted(np.array(boundaries), numbers[present], side="right")
    return Jagged(bins.astype(np.int64), _offsets(present))


def _offsets(lengths: Sequence[int] | np.ndarray) -> Int64Array:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
