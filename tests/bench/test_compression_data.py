"""The click tasks are what their label and split rules say."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.bench.compression import movielens_1m as one_million
from muxrec.bench.compression import movielens_100k as hundred_thousand
from muxrec.bench.compression.batches import ClickBatches
from muxrec.bench.compression.click_task import salted
from muxrec.bench.compression.clicks import ClickData, random_parts
from muxrec.bench.compression.datasets import CLICK_DATA
from muxrec.errors import DataError
from muxrec.features.arrays import Jagged
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import string_ids

RATINGS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
USERS = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"


def write_100k(folder: Path, ratings: str, users: str) -> Path:
    (folder / "ml-100k.inter").write_text(RATINGS + ratings, encoding="utf-8")
    with gzip.open(folder / "ml-100k.user.gz", "wt", encoding="utf-8") as file:
        file.write(USERS + users)
    return folder


def test_ratings_of_three_and_more_are_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hundred_thousand, "SIZES", {"train": 2, "validation": 1, "test": 1})
    ratings = "9\t5\t3\t0\n9\t6\t2\t0\n8\t5\t5\t0\n8\t7\t1\t0\n"
    users = "8\t17\tF\twriter\tT8H1N\n9\t56\tM\tother\t02139\n"
    data = hundred_thousand.movielens_100k(write_100k(tmp_path, ratings, users))
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert np.asarray(data.columns["user"]).tolist() == [9, 9, 8, 8]
    assert np.asarray(data.columns["age"]).tolist() == [6, 6, 0, 0]
    # 02139 is not the shortest spelling of an integer, so it is text.
    assert np.array_equal(data.columns["zip"], string_ids(["02139", "02139", "T8H1N", "T8H1N"]))
    assert sorted(np.concatenate(list(data.positions.values())).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("ratings", "users", "fault"),
    [
        ("9\t5\t3\t0\n", "8\t17\tF\twriter\t1\n", "no user '9', which has impressions"),
        ("9\t5\t3\n", "9\t17\tF\twriter\t1\n", r"ml-100k.inter:2: expected 4 values .* got 3"),
        ("9\t5\t3\t0\n", "9\tx\tF\twriter\t1\n", "age must be an integer, got 'x'"),
        ("9\t5\tnan\t0\n", "9\t9\tF\twriter\t1\n", "rating must be an integer, got 'nan'"),
        ("9\t5\t3\t0\n", "9\t9\tF\ta\t1\n9\t9\tF\ta\t1\n", "a user is listed twice"),
        ("9\t5\t3\t0\n", "9\t9\tF\ta\t1\n", "at least 100,000 impressions .* got 1"),
    ],
)
def test_malformed_ratings_are_named(tmp_path: Path, ratings: str, users: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        hundred_thousand.movielens_100k(write_100k(tmp_path, ratings, users))


@pytest.mark.parametrize("name", CLICK_DATA)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"expected .*check --folder"):
        CLICK_DATA[name](tmp_path)


def test_other_columns_are_named(tmp_path: Path) -> None:
    write_100k(tmp_path, "", "")
    (tmp_path / "ml-100k.inter").write_text("user\titem\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"expected the columns .* found \['user', 'item'\]"):
        hundred_thousand.movielens_100k(tmp_path)


def test_pairs_without_ratings_are_matched_by_unwatched_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_million, "SIZES", {"train": 6, "validation": 2, "test": 2})
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::7-2\n", "latin-1")
    movies = "10::Léon::Drama|Crime\n11::B::Drama\n12::C::\n"
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    pairs = {"userID": ["1", "1", "2", "2", "2"], "movieID": ["10", "11", "11", "12", "11"]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    data = one_million.movielens_1m(tmp_path)
    assert data.labels.sum() == 5
    user, movie = np.asarray(data.columns["user"]), np.asarray(data.columns["movie"])
    watched = {(1, 10), (1, 11), (2, 11), (2, 12)}
    for at, label in enumerate(data.labels):
        assert ((user[at], movie[at]) in watched) == bool(label)
    genres = data.columns["genres"]
    assert isinstance(genres, Jagged)
    bags = {10: ["Drama", "Crime"], 11: ["Drama"], 12: []}
    for at, of in enumerate(movie.tolist()):
        ids = genres.ids[genres.offsets[at] : genres.offsets[at + 1]]
        assert np.array_equal(ids, string_ids(bags[of]))


def test_unwatched_movies_come_as_often_as_they_are_watched_by_others() -> None:
    rng = np.random.default_rng(1)
    user, movie = np.repeat(np.arange(100), 100), rng.integers(1, 4, 10_000)
    # User 100 watched movie 0 only, so every other movie may be drawn for it.
    user, movie = np.append(user, np.full(9_000, 100)), np.append(movie, np.zeros(9_000, np.int64))
    drawn = one_million.draw_unwatched(user, movie, movies=4, seed=0)
    counts = np.bincount(drawn[user == 100], minlength=4)
    assert counts[0] == 0
    # Three equal chances, 9,000 draws: five standard deviations of a binomial count.
    assert abs(counts[1:] - 3_000).max() < 5 * np.sqrt(9_000 * 2 / 9)
    assert np.array_equal(drawn, one_million.draw_unwatched(user, movie, movies=4, seed=0))


def test_a_user_of_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_million, "MAX_ROUNDS", 5)
    with pytest.raises(DataError, match="no unwatched movie was found for 2 pairs"):
        one_million.draw_unwatched(np.zeros(2, np.int64), np.arange(2), movies=2, seed=0)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 9))
def test_parts_do_not_overlap(train: int, validation: int, test: int, more: int) -> None:
    rows = train + validation + test + more
    parts = random_parts(rows, train=train, validation=validation, test=test, seed=3)
    assert [len(part) for part in parts.values()] == [train, validation, test]
    together = np.concatenate(list(parts.values()))
    assert len(set(together.tolist())) == len(together)
    assert not together.size or together.max() < rows


def small() -> ClickData:
    bags = Jagged(np.array([7, 8, 7, 9]), np.array([0, 2, 2, 3, 4]))
    return ClickData(
        "small",
        (FeatureSpec("user", "id", ("user",), "id"), FeatureSpec("tags", "bag", ("tags",), "id")),
        {"user": np.array([4, 5, 4, 6]), "tags": bags},
        np.array([1, 0, 0, 1], np.float32),
        {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])},
        "made up",
        "by hand",
    )


def test_a_batch_holds_the_impressions_asked_for() -> None:
    sparse, labels = ClickBatches(small()).take(torch.tensor([3, 0, 1]))
    assert labels.tolist() == [1, 1, 0]
    assert sparse["user"].ids.tolist() == [6, 4, 5]
    assert sparse["user"].offsets.tolist() == [0, 1, 2, 3]
    assert sparse["tags"].ids.tolist() == [9, 7, 8]
    assert sparse["tags"].offsets.tolist() == [0, 1, 3, 3]


def test_known_ids_are_those_of_the_training_part() -> None:
    assert small().ids("user", "train").tolist() == [4, 5]
    assert small().ids("tags", "train").tolist() == [7, 8]
    assert small().ids("tags", "test").tolist() == [9]


def test_the_digest_sees_every_change() -> None:
    data = small()
    same, other = small(), replace(data, labels=1 - data.labels)
    moved = replace(data, positions={**data.positions, "test": np.array([2])})
    assert data.digest() == same.digest()
    digests = {data.digest(), other.digest(), moved.digest(), salted(data, 0).digest()}
    assert len(digests) == 4


def test_every_seed_has_names_of_its_own_and_equal_ids() -> None:
    data = small()
    first, second = salted(data, 0), salted(data, 1)
    assert [f.name for f in first.features] == ["user~0", "tags~0"]
    assert not set(first.columns) & set(second.columns)
    assert first.columns["user~0"] is second.columns["user~1"]


@pytest.mark.data
def test_movielens_100k_has_the_published_counts(data_folder: Path) -> None:
    data = CLICK_DATA["movielens-100k"](data_folder / "movielens-100k")
    # 6,110 + 11,370 ratings are below 3.
    assert data.labels.sum() == 100_000 - 17_480
    distinct = {f.name: len(np.unique(np.asarray(data.columns[f.name]))) for f in data.features}
    fields = {"movie": 1682, "user": 943, "gender": 2, "zip": 795, "occupation": 21, "age": 7}
    assert distinct == fields
    assert [len(data.positions[part]) for part in data.positions] == [72_000, 8_000, 20_000]


@pytest.mark.data
@pytest.mark.slow
def test_movielens_1m_is_half_clicks(data_folder: Path) -> None:
    data = CLICK_DATA["movielens-1m"](data_folder / "movielens-1m")
    assert [len(data.positions[part]) for part in data.positions] == [500_000, 50_000, 150_000]
    # Half of the pairs: five standard deviations of the share in a sample of 700,000.
    assert data.labels.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(700_000))
    assert len(np.unique(np.asarray(data.columns["user"]))) == 6_040
