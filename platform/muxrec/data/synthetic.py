"""A made-up shop with planted structure: the demo's data, and tests whose right answer is known.

Every item belongs to one department and one style. The department can be read in the item's words
only and the style in its picture only, and shoppers buy by department AND style together. So an
item's true neighbours are known, and a tower must read both to find those of a new item.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muxrec.data.synthetic_pictures import STYLES, picture

DEPARTMENTS = {
    "kitchen": "kettle pan knife bowl spatula whisk apron colander mug oven",
    "garden": "rake spade hose pot seed glove trellis shears bench planter",
    "camping": "tent lantern stove hammock compass rope flask mat torch backpack",
    "music": "guitar drum flute violin amplifier string pedal stand cymbal tuner",
    "office": "desk lamp stapler notebook pen binder chair folder calendar clip",
    "cycling": "helmet saddle pump bell chain tyre brake bottle light lock",
    "baking": "flour rolling tin mixer yeast icing cutter scale tray sieve",
    "sewing": "needle thread fabric button zipper thimble ribbon pattern scissors hoop",
}
NEUTRAL = ("fine", "sturdy", "simple", "modern", "compact", "plain", "handy", "neat", "solid")
START = 1_704_067_200
"""2024-01-01 00:00 UTC, the first second of the made-up log."""
DAY = 86_400

_Event = tuple[int, int, int, str]


@dataclass(frozen=True)
class World:
    """The made-up shop.

    Attributes:
        cluster: Cluster (department and style) of each item, int64 ``[C]``.
        launch: Day on which each item appears, float64 ``[C]``.
        rows: Catalogue rows, one dict per item, item ``i`` under the id ``sku-%04d``.
        users: User number of each event, int64 ``[N]``.
        items: Item number of each event, int64 ``[N]``.
        times: Unix seconds of each event, int64 ``[N]``, rising.
        kinds: ``view``, ``cart`` or ``purchase`` of each event.
        is_late: Whether an item appears only after the training period, bool ``[C]``.
    """

    cluster: npt.NDArray[np.int64]
    launch: npt.NDArray[np.float64]
    rows: tuple[dict[str, str], ...]
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.str_]

    @property
    def is_late(self) -> npt.NDArray[np.bool_]:
        """Whether an item appears only in the last fifth of the log."""
        return self.launch > 0


def make_world(
    seed: int = 0,
    *,
    items_per_cluster: int = 15,
    users: int = 500,
    sessions: int = 3500,
    days: int = 180,
) -> World:
    """The shop and its log; the same for the same arguments.

    Args:
        seed: Seed of everything random.
        items_per_cluster: Items in each of the 32 clusters; a fifth of them appear late.
        users: Shoppers, each of whom cares for three clusters, one of which changes with time.
        sessions: Visits; each looks at three to six items of one cluster, with some noise.
        days: Length of the log.
    """
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(DEPARTMENTS) * len(STYLES)), items_per_cluster)
    late = np.arange(len(cluster)) % items_per_cluster >= round(0.8 * items_per_cluster)
    launch = np.where(late, days * rng.uniform(0.82, 0.9, len(cluster)), 0.0)
    popularity = rng.pareto(2.0, len(cluster)) + 0.3
    rows = tuple(_item(rng, item, int(c)) for item, c in enumerate(cluster))
    tastes = _tastes(rng, users=users, clusters=int(cluster.max()) + 1)
    shop = _Shop(days, cluster, launch, popularity, tastes)
    starts = np.sort(rng.uniform(0, days, sessions))
    log = [event for start in starts for event in _visit(rng, shop, start=start)]
    log.sort(key=lambda event: event[2])
    who, what, when, kinds = (np.array(column) for column in zip(*log, strict=True))
    return World(cluster, launch, rows, who, what, when, kinds)


def write_world(folder: Path, *, seed: int = 0) -> World:
    """Write ``interactions.csv``, ``items.csv`` and ``images/`` of a world; returns the world.

    A few interaction rows are broken on purpose (no item, no time, a time that is no number), so
    that a reader's rejected table has something to show. The two tables are renamed into place
    last, after the pictures.
    """
    world = make_world(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + 1)
    rows = [dict(row) for row in world.rows]
    for item, row in enumerate(rows):
        style = list(STYLES)[int(world.cluster[item]) % len(STYLES)]
        if rng.random() < 0.97:
            row["image_path"] = f"images/{row['item_id']}.png"
            picture(style, seed=seed * 100_003 + item).save(folder / row["image_path"])
    _write_csv(folder / "items.csv", list(rows[0]), (list(row.values()) for row in rows))
    header = ["user_id", "item_id", "timestamp", "event_type", "weight"]
    _write_csv(folder / "interactions.csv", header, _log_rows(world, rng))
    return world


def cluster_name(cluster: int) -> str:
    """``kitchen, marine``: the department and the style of a cluster."""
    return f"{list(DEPARTMENTS)[cluster // len(STYLES)]}, {list(STYLES)[cluster % len(STYLES)]}"


def _item(rng: np.random.Generator, item: int, cluster: int) -> dict[str, str]:
    department = list(DEPARTMENTS)[cluster // len(STYLES)]
    words = DEPARTMENTS[department].split()
    noun, *others = rng.choice(words, size=4, replace=False)
    first, second = rng.choice(NEUTRAL, size=2, replace=False)
    description = (
        f"A {second} {noun}, made to go with your {others[0]}, {others[1]} and {others[2]}."
    )
    return {
        "item_id": f"sku-{item:04d}",
        "title": f"{first} {noun} no. {item}".capitalize(),
        "description": description if rng.random() < 0.9 else "",
        "tags": "|".join(rng.choice(["new", "sale", "gift", "eco", "premium"], 2, replace=False)),
        "price": f"{np.round(rng.lognormal(3.0, 0.8), 2)}",
        "image_path": "",
    }


def _tastes(rng: np.random.Generator, *, users: int, clusters: int) -> npt.NDArray[np.int64]:
    """Clusters that each user cares for early and late, int64 ``[2, users, 3]``."""
    early = np.array([rng.choice(clusters, 3, replace=False) for _ in range(users)])
    late = early.copy()
    late[:, 0] = rng.integers(0, clusters, users)
    return np.stack([early, late])


@dataclass(frozen=True)
class _Shop:
    """What a visit depends on; ``tastes`` holds clusters by phase and user, ``[2, users, 3]``."""

    days: int
    cluster: npt.NDArray[np.int64]
    launch: npt.NDArray[np.float64]
    popularity: npt.NDArray[np.float64]
    tastes: npt.NDArray[np.int64]


def _visit(rng: np.random.Generator, shop: _Shop, *, start: float) -> Iterator[_Event]:
    user = int(rng.integers(0, shop.tastes.shape[1]))
    wanted = rng.choice(shop.tastes[int(rng.random() < start / shop.days), user])
    # A new item is shown more in its first weeks, as shops do; that is what makes it testable.
    appeal = shop.popularity * (shop.launch <= start) * np.where(shop.launch > 0, 4.0, 1.0)
    inside = appeal * (shop.cluster == wanted)
    size = int(rng.integers(3, 7))
    chosen = rng.choice(len(appeal), size, replace=False, p=inside / inside.sum())
    stray = rng.choice(len(appeal), size, p=appeal / appeal.sum())
    chosen = np.where(rng.random(size) < 0.12, stray, chosen)
    for step, item in enumerate(chosen):
        kind = str(rng.choice(["view", "cart", "purchase"], p=[0.7, 0.2, 0.1]))
        yield user, int(item), START + int(start * DAY) + 60 * step, kind


def _log_rows(world: World, rng: np.random.Generator) -> Iterator[list[str]]:
    weights = {"view": "1", "cart": "2", "purchase": "3"}
    events = zip(world.users, world.items, world.times, world.kinds, strict=True)
    for at, (user, item, time, kind) in enumerate(events):
        row = [f"u{user:03d}", f"sku-{item:04d}", str(time), str(kind), weights[str(kind)]]
        if at % 400 == 200:
            column, text = [(1, ""), (2, ""), (2, "yesterday"), (0, "")][int(rng.integers(0, 4))]
            row[column] = text
        yield row


def _write_csv(path: Path, header: list[str], rows: Iterator[list[str]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    temporary.replace(path)
