"""A click task whose right answer is known: some users click on everything, others on nothing."""

from __future__ import annotations

import numpy as np
import pytest

from muxrec.bench.compression.clicks import ClickData, random_parts
from muxrec.bench.compression.settings import ClickSettings
from muxrec.bench.compression.train import Schedule
from muxrec.features.arrays import Jagged
from muxrec.spec.features import FeatureSpec


@pytest.fixture(scope="session")
def planted() -> ClickData:
    """A user's odd number decides the label; items and tags say nothing."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 60, 3_000), rng.integers(0, 20, 3_000)
    lengths = rng.integers(0, 3, 3_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    features = [FeatureSpec(name, "id", (name,), "id") for name in ("user", "item")]
    return ClickData(
        "planted",
        (*features, FeatureSpec("tags", "bag", ("tags",), "id")),
        {"user": user, "item": item, "tags": Jagged(rng.integers(0, 9, offsets[-1]), offsets)},
        (user % 2).astype(np.float32),
        random_parts(3_000, train=2_000, validation=500, test=500, seed=0),
        "odd users click",
        "at random",
    )


@pytest.fixture(scope="session")
def settings() -> ClickSettings:
    """A schedule of seconds."""
    return ClickSettings(8, "mlp", Schedule(128, 4, 2, dense_lr=1e-2, weight_decay=0.0))
