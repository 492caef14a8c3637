"""A small declaration that uses every method, pooling and shape of bag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.tables.bags import Bags

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

EXTREMES = (0, -1, 2**63 - 1, -(2**63))


@dataclass(frozen=True)
class Declared:
    features: tuple[FeatureSpec, ...]
    tables: tuple[TableSpec, ...]
    vocabularies: Mapping[str, Vocabulary]


@pytest.fixture
def declared() -> Declared:
    """Four features of all poolings over a full, a hashed and a unified table."""
    features = (
        FeatureSpec("item", "id", ("item",), "id", table="items", pooling="mean"),
        FeatureSpec("genre", "bag", ("genre",), "attributes", table="shared", probes=3),
        FeatureSpec(
            "word", "tokens", ("word",), "attributes", table="shared", probes=2, pooling="sqrt"
        ),
        FeatureSpec("type", "bag", ("type",), "attributes", table="own", probes=2, pooling="sum"),
    )
    tables = (
        TableSpec("items", "full", 8),
        TableSpec("shared", "unified", 12, rows=101),
        TableSpec("own", "hashed", 4, rows=37),
    )
    return Declared(features, tables, {"item": build_vocabulary("item", range(20))})


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Bags]]:
    """``make_batch(names, seed, size, longest)``: random bags with empty, repeated, extreme ids."""

    def bags(generator: torch.Generator, size: int, longest: int) -> Bags:
        lengths = torch.randint(0, longest + 1, (size,), generator=generator)
        lengths[0] = 0
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        ids = torch.randint(-3, 30, (int(offsets[-1]),), generator=generator)
        ids[: len(EXTREMES)] = torch.tensor(EXTREMES)[: len(ids)]
        return Bags(ids, offsets)

    def make(names: tuple[str, ...], *, seed: int, size: int = 9, longest: int = 5):
        generator = torch.Generator().manual_seed(seed)
        return {name: bags(generator, size, longest) for name in names}

    return make


@pytest.fixture
def pad() -> Callable[[Bags], tuple[torch.Tensor, torch.Tensor]]:
    """``pad(bags)``: ids ``[B, L]`` with junk in free places, and the mask."""

    def padded(bags: Bags) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = bags.lengths()
        mask = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
        ids = torch.full(mask.shape, 12345)
        ids[mask] = bags.ids
        return ids, mask.float()

    return padded
