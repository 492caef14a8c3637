"""MovieLens-1M without ratings: watched pairs against unwatched pairs drawn by popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.bench.compression.clicks import ClickData, random_parts
from muxrec.bench.compression.delimited import positions_by_key, read_columns
from muxrec.data.keys import id_keys
from muxrec.errors import DataError
from muxrec.features.arrays import Jagged
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import Int64Array

SIZES = {"train": 500_000, "validation": 50_000, "test": 150_000}
SEED = 42
MAX_ROUNDS = 2_000
LABEL_RULE = (
    "a watched pair is a click; as many unwatched pairs of the same users, movies drawn by how "
    "often they were watched, are none (a hard task: uniform negatives would give higher AUC)"
)

_USERS = ("user", "gender", "age", "occupation", "zip")
_MOVIES = ("movie", "title", "genres")
_GENRES = FeatureSpec("genres", "bag", ("genres",), "id", pooling="mean")


def movielens_1m(folder: Path) -> ClickData:
    """The task on user, movie, gender, age, occupation, zip code and genres (a bag).

    Args:
        folder: Holds ``pairs.parquet`` and ``users.dat``, ``movies.dat``, gzip allowed.

    Raises:
        DataError: A file is missing or malformed, or a pair's user or movie is unknown.
    """
    pair_users, pair_movies = _pairs(folder)
    users, movies = _table(folder, "users.dat", _USERS), _table(folder, "movies.dat", _MOVIES)
    user = _places(pair_users, users["user"], what="user", origin=folder / "users.dat")
    movie = _places(pair_movies, movies["movie"], what="movie", origin=folder / "movies.dat")
    unwatched = draw_unwatched(user, movie, movies=len(movies["movie"]), seed=SEED)
    parts = random_parts(2 * len(user), **SIZES, seed=SEED)
    kept = np.concatenate(list(parts.values()))
    ends = np.cumsum([0, *SIZES.values()])
    at_user = np.concatenate([user, user])[kept]
    at_movie = np.concatenate([movie, unwatched])[kept]
    columns: dict[str, Int64Array | Jagged] = {
        "user": id_keys(users["user"])[at_user],
        "movie": id_keys(movies["movie"])[at_movie],
        **{name: id_keys(users[name])[at_user] for name in _USERS[1:]},
        "genres": _genres(movies["genres"]).take(at_movie),
    }
    singles = tuple(FeatureSpec(name, "id", (name,), "id") for name in [*_USERS, "movie"])
    split = ", ".join(f"{count:,} {part}" for part, count in SIZES.items())
    return ClickData(
        "movielens-1m",
        (*singles, _GENRES),
        columns,
        (kept < len(user)).astype(np.float32),
        {part: np.arange(ends[at], ends[at + 1]) for at, part in enumerate(parts)},
        LABEL_RULE,
        f"random over {2 * len(user):,} pairs, seed {SEED}: {split}",
    )


def draw_unwatched(user: Int64Array, movie: Int64Array, *, movies: int, seed: int) -> Int64Array:
    """For every watched pair a movie that its user never watched, drawn by popularity.

    Args:
        user: User of each pair, int64 ``[N]``, from 0.
        movie: Movie of each pair, int64 ``[N]`` in ``[0, movies)``.
        movies: How many movies there are.
        seed: Seed of the draws.

    Returns:
        Movies, int64 ``[N]``; the chance of a movie is its share of all pairs, given that the user
        never watched it.

    Raises:
        DataError: Some user watched (almost) everything, so that no draw was left for them.
    """
    rng = np.random.default_rng(seed)
    watched = np.unique(user * movies + movie)
    drawn = np.empty_like(movie)
    left = np.arange(len(user))
    for _ in range(MAX_ROUNDS):
        drawn[left] = movie[rng.integers(len(movie), size=len(left))]
        pairs = user[left] * movies + drawn[left]
        at = np.minimum(np.searchsorted(watched, pairs), len(watched) - 1)
        left = left[watched[at] == pairs]
        if not left.size:
            return drawn
    raise DataError(
        f"no unwatched movie was found for {left.size:,} pairs in {MAX_ROUNDS:,} rounds: a user "
        "watched almost every movie"
    )


def _pairs(folder: Path) -> tuple[list[str], list[str]]:
    path = folder / "pairs.parquet"
    if not path.is_file():
        raise DataError(f"{folder}: expected pairs.parquet, found none: check --folder")
    try:
        table = pq.read_table(path, columns=["userID", "movieID"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected columns userID and movieID: {error}") from error
    if table["userID"].null_count or table["movieID"].null_count:
        raise DataError(f"{path}: a user or movie is null: expected none")
    text = table.cast(pa.schema([("userID", pa.string()), ("movieID", pa.string())]))
    return text["userID"].to_pylist(), text["movieID"].to_pylist()


def _table(folder: Path, name: str, columns: tuple[str, ...]) -> dict[str, list[str]]:
    return read_columns(folder, name, columns, separator="::", header=False, encoding="latin-1")


def _places(wanted: list[str], keys: list[str], *, what: str, origin: Path) -> Int64Array:
    found = positions_by_key(wanted, keys, what=what, origin=origin)
    return np.array(found, dtype=np.int64)


def _genres(joined: list[str]) -> Jagged:
    bags = [[name for name in text.split("|") if name] for text in joined]
    offsets = np.cumsum([0, *map(len, bags)]).astype(np.int64)
    return Jagged(id_keys([name for bag in bags for name in bag]), offsets)
