"""The data sets of the click task, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.movielens_1m import movielens_1m
from muxrec.bench.compression.movielens_100k import movielens_100k

CLICK_DATA: dict[str, Callable[[Path], ClickData]] = {
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
}
