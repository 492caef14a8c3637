"""Title search: every word of the query begins a word of the title; case and accents ignored."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+")
_LAST = "\U0010ffff"
MAX_PREFIX_WORDS = 2000
"""Distinct words that one short prefix is expanded to, so that ``a`` stays cheap."""


def folded_words(text: str) -> list[str]:
    """Words of ``text`` without case, accents and punctuation."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in split if not unicodedata.combining(c)))


class TitleIndex:
    """An inverted index from folded words to the positions of the titles that hold them."""

    def __init__(self, titles: Sequence[str], popularity: npt.NDArray[np.int64]) -> None:
        """Index ``titles``, one per position; ``popularity`` int64 ``[C]`` breaks ties."""
        postings: dict[str, array[int]] = {}
        self._folded = [" ".join(words) for words in map(folded_words, titles)]
        for position, folded in enumerate(self._folded):
            for word in set(folded.split()):
                postings.setdefault(word, array("q")).append(position)
        self._words = sorted(postings)
        self._postings = [np.frombuffer(postings[w], dtype=np.int64) for w in self._words]
        self._popularity = popularity

    def search(self, text: str, limit: int) -> list[int]:
        """Positions of the best titles for ``text``, at most ``limit``; empty without a word.

        A title equal to the text comes first, then titles that begin with it, then by the number
        of whole words that agree, then by popularity.
        """
        words = folded_words(text)
        found = self._matching(words)
        if found.size == 0:
            return []
        by_popularity = found[np.argsort(-self._popularity[found], kind="stable")]
        wanted, joined = set(words), " ".join(words)
        shortlist = by_popularity[: max(50 * limit, 1000)].tolist()
        shortlist.sort(key=lambda position: self._rank(position, wanted, joined))
        return shortlist[:limit]

    def _rank(self, position: int, wanted: set[str], joined: str) -> tuple[bool, bool, int]:
        folded = self._folded[position]
        whole = len(wanted.intersection(folded.split()))
        return folded != joined, not folded.startswith(joined), -whole

    def _matching(self, words: list[str]) -> npt.NDArray[np.int64]:
        found = np.empty(0, dtype=np.int64)
        for number, word in enumerate(words):
            start = bisect_left(self._words, word)
            stop = min(bisect_left(self._words, word + _LAST), start + MAX_PREFIX_WORDS)
            if start == stop:
                return np.empty(0, dtype=np.int64)
            holders = np.unique(np.concatenate(self._postings[start:stop]))
            found = holders if number == 0 else np.intersect1d(found, holders, assume_unique=True)
        return found


def matches(title: str, words: list[str]) -> bool:
    """Whether every folded word of the query begins a word of ``title``."""
    held = folded_words(title)
    return bool(words) and all(any(h.startswith(word) for h in held) for word in words)
