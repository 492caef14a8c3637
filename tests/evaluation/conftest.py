"""A snapshot small enough to reason about: a checkerboard of two groups of films, in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest

from muxrec.recipe.model import Data, Evaluation, Recipe, Source
from muxrec.spec.features import FeatureSpec, TableSpec

GROUP = 12
WORDS = (
    ("alien", "rocket", "planet", "robot", "laser", "orbit"),
    ("cowboy", "saloon", "sheriff", "desert", "canyon", "horse"),
)
EVENT_COLUMNS = ("user_id", "user_key", "item_key", "timestamp", "event_type", "weight", "split")


@dataclass(frozen=True)
class MemorySnapshot:
    """The reading side of a dataset snapshot, held in memory."""

    item_table: pa.Table
    event_table: pa.Table
    pair_tables: dict[str, pa.Table]
    digest: str = "ab" * 32

    def items(self) -> pa.Table:
        return self.item_table

    def events(self, split=None, columns=None) -> pa.Table:
        table = self.event_table
        if split is not None:
            table = table.filter(pa.compute.equal(table["split"], split))
        return table.select(columns or table.column_names)

    def pairs(self, split) -> pa.Table:
        return self.pair_tables[split]

    def with_events(self, table: pa.Table) -> MemorySnapshot:
        return replace(self, event_table=table)


def event_rows(split: str, *, users: int, rng: np.random.Generator) -> dict[str, list]:
    """Every user sees seven items of one group: even items by even users, odd by odd ones."""
    rows: dict[str, list] = {name: [] for name in EVENT_COLUMNS}
    for user in range(users):
        own = np.arange(GROUP) * 2 + user % 2
        for step, position in enumerate(rng.choice(own, size=7, replace=False)):
            values = (f"u{user}", user, 100 + 10 * position, step, "rating", 4.0, split)
            for name, value in zip(EVENT_COLUMNS, values, strict=True):
                rows[name].append(value)
    return rows


def pair_table(keys: np.ndarray, *, score: float = 1.0) -> pa.Table:
    """All pairs within a group; nearer keys score higher."""
    a, b = (x.ravel() for x in np.meshgrid(keys, keys, indexing="ij"))
    keep = (a != b) & ((a - b) % 20 == 0)
    a, b = a[keep], b[keep]
    near = score / (1 + np.abs(a - b) / 20)
    columns = {"item_a": a, "item_b": b, "count": np.full(a.size, 3), "weight": near * 2}
    return pa.table({**columns, "score": near})


@pytest.fixture
def checkerboard() -> MemorySnapshot:
    """24 items; even positions belong together and so do odd ones, in every period.

    The last four items are cold: no training event or pair names them.
    """
    rng = np.random.default_rng(5)
    count = 2 * GROUP
    keys = 100 + 10 * np.arange(count)
    cold = np.arange(count) >= count - 4
    words = [" ".join(rng.choice(WORDS[at % 2], size=4)) for at in range(count)]
    parts = [
        pa.table(event_rows(split, users=40, rng=rng)) for split in ("train", "validation", "test")
    ]
    events = pa.concat_tables(parts)
    train = pa.compute.equal(events["split"], "train")
    late = pa.compute.greater_equal(events["item_key"], int(keys[count - 4]))
    events = events.filter(pa.compute.invert(pa.compute.and_(train, late)))
    seen = events.filter(pa.compute.equal(events["split"], "train"))["item_key"].to_numpy()
    items = pa.table(
        {
            "item_id": [str(key) for key in keys],
            "item_key": keys,
            "title": [f"{word} {at}" for at, word in enumerate(words)],
            "image_path": [None if at % 5 == 0 else f"/none/{at}.jpg" for at in range(count)],
            "train_events": np.bincount(np.searchsorted(keys, seen), minlength=count),
            "is_cold": cold,
            "related": [[str(keys[(at + 2) % count]), "no-such-item"] for at in range(count)],
        }
    )
    warm = pair_table(keys[~cold])
    pairs = {"train": warm, "validation": pair_table(keys), "test": pair_table(keys)}
    return MemorySnapshot(items, events, pairs)


@pytest.fixture
def recipe() -> Recipe:
    """A recipe over the checkerboard's columns."""
    return Recipe(
        name="checkerboard",
        data=Data(source=Source(kind="generic", relations={"next": "related"})),
        features=(
            FeatureSpec("item", "id", ("item_key",), "id", table="items"),
            FeatureSpec("words", "tokens", ("title",), "text", table="words"),
            FeatureSpec("poster", "image", ("image_path",), "image", encoder="descriptor"),
        ),
        tables=(TableSpec("items", "full", 8), TableSpec("words", "hashed", 8, rows=64)),
        evaluation=Evaluation(ks=(5, 10), max_relevant=10, min_events=3, bootstrap=200),
    )
