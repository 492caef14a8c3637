"""MovieLens-100K as RecBole atomic files: ratings of 3 and more are clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muxrec.bench.compression.clicks import ClickData, random_parts
from muxrec.bench.compression.delimited import integers, positions_by_key, read_columns
from muxrec.data.keys import id_keys
from muxrec.spec.features import FeatureSpec

SIZES = {"train": 72_000, "validation": 8_000, "test": 20_000}
SEED = 42
LABEL_RULE = "rating >= 3 is a click; ratings of 3 stay in (dropping them lifts AUC by points)"
AGE_EDGES = (18, 25, 35, 45, 50, 56)
"""The seven age groups of MovieLens-1M."""

_RATINGS = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
_USERS = ("user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token")


def movielens_100k(folder: Path) -> ClickData:
    """The task on movie, user, gender, zip code, occupation and age group.

    Args:
        folder: Holds ``ml-100k.inter`` and ``ml-100k.user``, gzip allowed.

    Raises:
        DataError: A file is missing or malformed, or a rating's user is unknown.
    """
    ratings = read_columns(folder, "ml-100k.inter", _RATINGS, separator="\t", header=True)
    users = read_columns(folder, "ml-100k.user", _USERS, separator="\t", header=True)
    user, user_file = ratings["user_id:token"], folder / "ml-100k.user"
    of_user = positions_by_key(user, users["user_id:token"], what="user", origin=user_file)
    ages = integers(users["age:token"], column="age", origin=user_file)
    groups = np.searchsorted(AGE_EDGES, ages, side="right").astype(np.int64)
    columns = {
        "movie": id_keys(ratings["item_id:token"]),
        "user": id_keys(user),
        "gender": id_keys(users["gender:token"])[of_user],
        "zip": id_keys(users["zip_code:token"])[of_user],
        "occupation": id_keys(users["occupation:token"])[of_user],
        "age": groups[of_user],
    }
    stars = integers(ratings["rating:float"], column="rating", origin=folder / "ml-100k.inter")
    split = ", ".join(f"{count:,} {part}" for part, count in SIZES.items())
    return ClickData(
        "movielens-100k",
        tuple(FeatureSpec(name, "id", (name,), "id") for name in columns),
        columns,
        (np.array(stars) >= 3).astype(np.float32),
        random_parts(len(stars), **SIZES, seed=SEED),
        LABEL_RULE,
        f"random over ratings, seed {SEED}: {split}",
    )
