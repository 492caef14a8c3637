from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from muxrec_serving.answering.titles import TitleIndex, folded_words, matches

TITLES = [
    "Amélie",
    "The Matrix",
    "Matrix Reloaded, The",
    "Star Wars: A New Hope",
    "Star Trek",
    "Łódź by night",
    "千と千尋の神隠し",
    "",
]


def index(popularity: list[int] | None = None) -> TitleIndex:
    counts = popularity or [0] * len(TITLES)
    return TitleIndex(TITLES, np.array(counts, dtype=np.int64))


def test_case_and_accents_do_not_matter():
    assert index().search("AMELIE", 5) == [0]
    assert index().search("amélie", 5) == [0]


def test_every_word_must_begin_a_word_of_the_title():
    assert index().search("sta w", 5) == [3]
    assert index().search("star hope", 5) == [3]
    assert index().search("star matrix", 5) == []


def test_other_scripts_are_found():
    assert index().search("千と千尋", 5) == [6]


def test_a_title_that_begins_with_the_text_comes_first():
    assert index(popularity=[0, 9, 1, 0, 0, 0, 0, 0]).search("matrix", 5) == [2, 1]


def test_popularity_breaks_ties():
    assert index(popularity=[0, 0, 0, 1, 5, 0, 0, 0]).search("star", 5) == [4, 3]


def test_text_without_a_word_finds_nothing():
    assert index().search("...", 5) == []
    assert index().search("", 5) == []


def test_the_limit_holds():
    assert len(index().search("star", 1)) == 1


@given(st.text(max_size=30))
def test_any_text_is_answered(text: str):
    found = index().search(text, 3)
    assert len(found) <= 3
    assert all(matches(TITLES[position], folded_words(text)) for position in found)


@given(
    st.lists(st.text(alphabet="abé Ü", max_size=8), max_size=12),
    st.text(alphabet="abeu ", max_size=4),
)
def test_the_index_finds_what_a_scan_finds(titles: list[str], text: str):
    made = TitleIndex(titles, np.zeros(len(titles), dtype=np.int64))
    words = folded_words(text)
    scanned = [position for position, title in enumerate(titles) if matches(title, words)]
    assert sorted(made.search(text, 100)) == scanned
