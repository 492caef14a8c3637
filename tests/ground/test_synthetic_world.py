"""The made-up shop: the same for a seed, and learnable by construction."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from muxrec.data.synthetic import World, make_world, write_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_world(tmp_path / name, seed=5)
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")


def test_another_seed_gives_another_log(world: World) -> None:
    assert not np.array_equal(make_world(1).items[:100], world.items[:100])


def test_late_items_have_no_event_in_the_training_period(world: World) -> None:
    train = world.items[: int(0.8 * len(world.items))]
    late = np.flatnonzero(world.is_late)
    assert len(late) == 96
    assert not np.isin(train, late).any()
    assert np.isin(late, world.items).mean() > 0.9


def test_cluster_mates_follow_each_other_far_more_often_than_popular_items(world: World) -> None:
    order = np.lexsort((world.times, world.users))
    users, items = world.users[order], world.items[order]
    near = (users[1:] == users[:-1]) & (np.diff(world.times[order]) <= 60)
    a, b = items[:-1][near], items[1:][near]
    same = (world.cluster[a] == world.cluster[b]).mean()
    shuffled = np.random.default_rng(0).permutation(b)
    chance = (world.cluster[a] == world.cluster[shuffled]).mean()
    assert same > 0.7
    assert chance < 0.1


def test_words_tell_the_department_and_not_the_style(world: World) -> None:
    nouns = np.array([row["title"].split()[1] for row in world.rows])
    for noun in np.unique(nouns):
        clusters = np.unique(world.cluster[nouns == noun])
        assert len(np.unique(clusters // 4)) == 1
    shared = [len(np.unique(world.cluster[nouns == noun] % 4)) for noun in np.unique(nouns)]
    assert np.mean(shared) > 2


def test_broken_rows_are_written_for_the_rejected_table(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    with (tmp_path / "interactions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    broken = [r for r in rows if not (r["user_id"] and r["item_id"] and r["timestamp"].isdigit())]
    assert len(rows) == len(world.items)
    assert 20 < len(broken) < 0.01 * len(rows)


def test_every_picture_named_in_the_catalogue_is_there(tmp_path: Path) -> None:
    write_world(tmp_path)
    with (tmp_path / "items.csv").open(encoding="utf-8") as stream:
        paths = [row["image_path"] for row in csv.DictReader(stream)]
    named = [Path(path) for path in paths if path]
    assert all((tmp_path / path).is_file() for path in named)
    assert 0 < len(paths) - len(named) < 40
