"""A snapshot small enough to reason about: a checkerboard of two groups of films, in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from muxrec.data.snapshot import FORMAT_VERSION, KIND, point_to
from muxrec.evaluation.run import Evaluated, evaluate_run
from muxrec.evaluation.scoring import unit_rows
from muxrec.evaluation.trained_rows import TrainedRun
from muxrec.manifest import published_folder, seal
from muxrec.recipe.load import recipe_hash
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
            table = table.filter(pc.equal(table["split"], split))
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


@pytest.fixture(scope="session")
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
    train = pc.equal(events["split"], "train")
    late = pc.greater_equal(events["item_key"], int(keys[count - 4]))
    events = events.filter(pc.invert(pc.and_(train, late)))
    seen = events.filter(pc.equal(events["split"], "train"))["item_key"].to_numpy()
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


@pytest.fixture(scope="session")
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


def write_snapshot(snapshot: MemorySnapshot, root: Path, *, recipe: Recipe) -> None:
    """The snapshot on disk, sealed, as the data job leaves it."""
    run = root / "dt=2024-01-01" / "run=abababababab"
    with published_folder(run) as folder:
        tables = {"items": snapshot.item_table, "events/dt=2024-01-01": snapshot.event_table}
        tables |= {f"pairs/split={name}": t for name, t in snapshot.pair_tables.items()}
        for name, table in tables.items():
            (folder / name).mkdir(parents=True)
            pq.write_table(table, folder / name / "part-0.parquet", write_page_checksum=True)
        body = {"digest": snapshot.digest, "recipe_hash": recipe_hash(recipe, "data")}
        seal(folder, kind=KIND, format_version=FORMAT_VERSION, body=body)
    point_to(run)


def write_vectors(folder: Path, vectors: np.ndarray, *, digest: str) -> None:
    """A finished training: its vectors, its history and its last file."""
    folder.mkdir(parents=True)
    np.save(folder / "vectors.npy", unit_rows(vectors))
    records = [{"step": step, "loss": 3.0 / step} for step in range(1, 20)]
    records += [{"step": step, "ndcg_at_10": step / 100} for step in (10, 19)]
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "done.json").write_text(json.dumps({"dataset": digest}))


@dataclass(frozen=True)
class TinyRun:
    """A run folder with a dataset and trained vectors, and the recipe that points to it."""

    recipe: Recipe
    runs: list[TrainedRun]
    output: Path


def make_tiny_run(output: Path, snapshot: MemorySnapshot, recipe: Recipe) -> TinyRun:
    """Main knows the sides of the board, two seeds; the others know nothing; one is not trained."""
    write_snapshot(snapshot, output / "dataset", recipe=recipe)
    rng = np.random.default_rng(0)
    count = 2 * GROUP
    runs = []
    for name, seed in (("main", 0), ("main", 1), ("ids only", 0), ("permuted_images", 0)):
        known = np.eye(2)[np.arange(count) % 2] * (4 if name == "main" else 0)
        vectors = np.concatenate([known, rng.normal(size=(count, 6))], axis=1)
        folder = output / "train" / name / f"seed={seed}"
        write_vectors(folder, vectors, digest=snapshot.digest)
        runs.append(TrainedRun(name, name == "permuted_images", seed, folder))
    runs.append(TrainedRun("text only", False, 0, output / "train" / "text only" / "seed=0"))
    recipe = replace(recipe, output=str(output), tower=replace(recipe.tower, matryoshka=(2, 4)))
    return TinyRun(recipe, runs, output)


@pytest.fixture
def tiny_run(tmp_path, checkerboard, recipe) -> TinyRun:
    """A run folder to break."""
    return make_tiny_run(tmp_path / "run", checkerboard, recipe)


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory, checkerboard, recipe) -> tuple[TinyRun, Evaluated]:
    """A run folder and its evaluation, to look at only."""
    run = make_tiny_run(tmp_path_factory.mktemp("measured") / "run", checkerboard, recipe)
    return run, evaluate_run(run.recipe, run.runs)
