from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxrec_serving.answering.attributes import AttributeIndex, meets, values_of
from muxrec_serving.errors import RequestError
from muxrec_serving.query import parse_filters

CELLS = {
    "genre": ["Comedy|Drama", "Drama", None, "Comedy", ""],
    "tags": [["a", "b"], ["b"], [], None, ["c", None]],
    "year": [1990, 1990, 2001, None, 2001],
}


@pytest.fixture
def attributes() -> AttributeIndex:
    return AttributeIndex(CELLS, np.arange(15, dtype=np.float32).reshape(5, 3))


def test_a_cell_is_a_list_a_separated_string_or_one_value():
    assert values_of("a| b |") == ["a", "b"]
    assert values_of(["a", None, 3]) == ["a", "3"]
    assert values_of(1990) == ["1990"]
    assert values_of(None) == []


def test_commas_are_or_and_repeated_filters_are_and(attributes: AttributeIndex):
    both = parse_filters(["genre:Comedy,Drama", "year:1990"])
    assert attributes.select(both).tolist() == [0, 1]
    assert attributes.select(parse_filters(["genre:Comedy"])).tolist() == [0, 3]
    assert attributes.select(parse_filters(["genre:Comedy", "genre:Drama"])).tolist() == [0]


def test_a_value_that_nothing_holds_selects_nothing(attributes: AttributeIndex):
    assert attributes.select(parse_filters(["genre:Western"])).tolist() == []


def test_the_subset_carries_its_vectors(attributes: AttributeIndex):
    positions, vectors = attributes.subset(parse_filters(["year:2001"]))
    assert positions.tolist() == [2, 4]
    assert vectors.tolist() == [[6, 7, 8], [12, 13, 14]]


def test_an_unknown_column_is_refused_and_the_known_ones_are_named(attributes: AttributeIndex):
    with pytest.raises(RequestError, match=r"'colour'.*genre, tags, year") as caught:
        attributes.check(parse_filters(["colour:red"]))
    assert (caught.value.status, caught.value.code) == (422, "unknown_filter")


@pytest.mark.parametrize("text", ["genre", "genre:", ":Comedy", "", "genre:,", ","])
def test_a_filter_without_column_or_value_is_refused(text: str):
    with pytest.raises(RequestError, match="filter must read column:value"):
        parse_filters([text])


def test_counts_are_most_frequent_first(attributes: AttributeIndex):
    assert list(attributes.counts("genre").items()) == [("Comedy", 2), ("Drama", 2)]


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=1, max_size=20),
    st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=3),
)
def test_the_index_selects_what_a_scan_selects(cells: list[list[str]], wanted: list[set[str]]):
    made = AttributeIndex({"x": cells}, np.zeros((len(cells), 2), dtype=np.float32))
    where = tuple(("x", frozenset(choices)) for choices in wanted)
    scanned = [position for position, cell in enumerate(cells) if meets({"x": cell}, where)]
    assert made.select(where).tolist() == scanned
