"""From bags of raw ids to bags of rows, for all reads of one physical table at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from muxrec.spec.hashing import probe_seed
from muxrec.tables.bags import Bags
from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.lowering import Group
from muxrec.tables.methods import HashAddress, VocabularyAddress
from muxrec_kernels.multiplexed_lookup import POOLING_EXPONENTS, slot_lookups


class RowBags(NamedTuple):
    """Rows to read, read-major: bag ``s * B + b`` belongs to read s of item b.

    Attributes:
        rows: Rows, int64 ``[M]``.
        offsets: Bag starts, int64 ``[S * B + 1]``.
    """

    rows: Tensor
    offsets: Tensor


class FeatureBags(NamedTuple):
    """Bags of several features joined feature-major: ids ``[N]``, offsets ``[F * B + 1]``."""

    ids: Tensor
    offsets: Tensor
    batch_size: int


def join_features(sparse: Mapping[str, Bags], names: tuple[str, ...]) -> FeatureBags:
    """The bags of the features ``names`` one after another.

    Raises:
        KeyError: A feature is missing from ``sparse``.
        ValueError: Two features have different batch sizes.
    """
    parts = [sparse[name] for name in names]
    sizes = {part.batch_size for part in parts}
    if len(sizes) != 1:
        found = ", ".join(f"{n} {sparse[n].batch_size}" for n in names)
        raise ValueError(f"all features must have the same number of bags, got {found}")
    if len(parts) == 1:
        return FeatureBags(*parts[0], parts[0].batch_size)
    counts = torch.tensor([0, *(part.ids.numel() for part in parts[:-1])])
    ends = torch.stack([part.offsets[1:] for part in parts])
    ends += counts.cumsum(0).to(ends.device)[:, None]
    offsets = torch.cat([ends.new_zeros(1), ends.flatten()])
    return FeatureBags(torch.cat([part.ids for part in parts]), offsets, parts[0].batch_size)


class HashedRows(nn.Module):
    """Addresses of a group whose reads are all hashed: one vectorised call for all of them.

    Attributes:
        seeds: Seed of each read, int64 ``[S]``.
        slot_features: Feature of each read by its place in the group, int64 ``[S]``.
    """

    seeds: Tensor
    slot_features: Tensor

    def __init__(self, group: Group) -> None:
        super().__init__()
        seeds = [read.address.seed for read in group.reads if isinstance(read.address, HashAddress)]
        places = [group.features.index(read.feature) for read in group.reads]
        self.rows = group.table.rows
        self.probes = {name: places.count(at) for at, name in enumerate(group.features)}
        self.first = {name: places.index(at) for at, name in enumerate(group.features)}
        self.register_buffer("seeds", torch.tensor(seeds), persistent=False)
        self.register_buffer("slot_features", torch.tensor(places), persistent=False)

    def forward(self, bags: FeatureBags) -> RowBags:
        """Rows of every read of the group."""
        found = slot_lookups(
            bags.ids,
            bags.offsets,
            self.slot_features,
            self.seeds,
            rows=self.rows,
            batch_size=bags.batch_size,
        )
        return RowBags(found.rows, found.offsets)

    def padded(self, name: str, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows int64 ``[B, L, P]`` of feature ``name`` and the mask of its ids, ``[B, L]``."""
        first = self.first[name]
        seeds = self.seeds[first : first + self.probes[name]]
        return hash_rows(ids[:, :, None], seeds, self.rows), mask


class VocabularyRows(nn.Module):
    """Addresses of a full table: one hash, one gather and one comparison per id.

    Attributes:
        keys: Ids, int64 ``[buckets, slots]``.
        places: Row of each key plus one, int64 ``[buckets, slots]``; 0 in free places.
    """

    keys: Tensor
    places: Tensor

    def __init__(self, group: Group) -> None:
        super().__init__()
        address = group.reads[0].address
        if not isinstance(address, VocabularyAddress):
            raise TypeError(f"{group.table.name} is not addressed by a vocabulary: {address}")
        vocabulary = address.vocabulary
        self.seed = probe_seed(vocabulary.feature, 0)
        self.buckets = len(vocabulary.keys)
        self.register_buffer("keys", torch.from_numpy(vocabulary.keys), persistent=False)
        self.register_buffer("places", torch.from_numpy(vocabulary.rows + 1), persistent=False)

    def lookup(self, ids: Tensor) -> Tensor:
        """Row of each id plus one, int64, the shape of ``ids``; 0 where it is unknown."""
        buckets = hash_rows(ids, self.seed, self.buckets)
        hit = self.keys[buckets] == ids[..., None]
        return torch.where(hit, self.places[buckets], 0).sum(dim=-1)

    def forward(self, bags: FeatureBags) -> RowBags:
        """Rows of the known ids; the others are dropped from their bags."""
        places = self.lookup(bags.ids)
        known = places > 0
        kept = torch.cat([bags.offsets.new_zeros(1), known.cumsum(0)])
        return RowBags(places[known] - 1, kept[bags.offsets])

    def padded(self, name: str, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Rows int64 ``[B, L, 1]`` and the mask of the known ids, ``[B, L]``."""
        places = self.lookup(ids)
        known = (places > 0).to(mask.dtype)
        return (places - known.to(places.dtype))[:, :, None], mask * known


def addressing(group: Group) -> HashedRows | VocabularyRows:
    """The module that turns the group's ids into rows."""
    hashed = isinstance(group.reads[0].address, HashAddress)
    return HashedRows(group) if hashed else VocabularyRows(group)


def exponents(group: Group, poolings: Mapping[str, str]) -> tuple[float, ...]:
    """Pooling exponent of each read of the group: a bag of n rows is divided by ``n ** e``."""
    return tuple(POOLING_EXPONENTS[poolings[read.feature]] for read in group.reads)
