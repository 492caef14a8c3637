"""From bags of raw ids to bags of rows, for all reads of one physical table at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.spec import hashing
from muxrec.tables.bags import Bags
from muxrec.tables.hash_cpu import hash_rows_in_place, start_seeds
from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.lowering import Group
from muxrec.tables.methods import HashAddress, VocabularyAddress


class RowBags(NamedTuple):
    """Rows to read, read-major: bag ``s * B + b`` belongs to read s of item b.

    Attributes:
        rows: Rows, int64 ``[M]``.
        offsets: Bag starts, int64 ``[S * B + 1]``.
    """

    rows: Tensor
    offsets: Tensor


class JoinedBags(NamedTuple):
    """Bags of several features one after another.

    Attributes:
        ids: Raw ids, int64 ``[N]``, feature after feature.
        offsets: Bag starts, int64 ``[F * B + 1]``.
        counts: Ids of each feature, int64 ``[F]``.
        batch_size: B.
    """

    ids: Tensor
    offsets: Tensor
    counts: Tensor
    batch_size: int


def join_features(sparse: Mapping[str, Bags], names: tuple[str, ...]) -> JoinedBags:
    """The bags of the features ``names`` one after another; a name may come more than once.

    Raises:
        KeyError: A feature is missing from ``sparse``.
        ValueError: Two features have different numbers of bags.
    """
    parts = [sparse[name] for name in names]
    sizes = {part.offsets.numel() for part in parts}
    if len(sizes) != 1:
        found = ", ".join(f"{name} {sparse[name].batch_size}" for name in names)
        raise ValueError(f"all features must have the same number of bags, got {found}")
    if len(parts) == 1:
        ids, offsets = parts[0]
        return JoinedBags(ids, offsets, offsets[-1:], offsets.numel() - 1)
    each = torch.cat([part.offsets for part in parts]).view(len(parts), -1)
    counts = each[:, -1]
    offsets = _offsets_on_cpu(each) if each.device.type == "cpu" else _offsets(each)
    batch_size = each.shape[1] - 1
    return JoinedBags(torch.cat([part.ids for part in parts]), offsets, counts, batch_size)


def _offsets(each: Tensor) -> Tensor:
    """Joined bag starts ``[F * B + 1]`` of the features' own, ``[F, B + 1]``."""
    counts = each[:, -1]
    ends = each[:, 1:] + (counts.cumsum(0) - counts)[:, None]
    return torch.cat([each[0, :1], ends.flatten()])


def _offsets_on_cpu(each: Tensor) -> Tensor:
    """The same in fewer and cheaper calls."""
    own = each.numpy()
    counts = own[:, -1]
    offsets = np.empty(own.size - len(own) + 1, dtype=np.int64)
    offsets[0] = 0
    inner = offsets[1:].reshape(len(own), -1)
    np.add(own[:, 1:], (counts.cumsum() - counts)[:, None], out=inner)
    return torch.from_numpy(offsets)


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
        self._starts = start_seeds(np.array(seeds, dtype=np.int64))
        self.register_buffer("seeds", torch.tensor(seeds), persistent=False)
        self.register_buffer("slot_features", torch.tensor(places), persistent=False)

    def forward(self, bags: JoinedBags) -> RowBags:
        """Rows of every read; ``bags`` are joined by read, so a feature comes once per probe."""
        if bags.ids.device.type == "cpu":
            starts = self._starts.repeat(bags.counts.numpy())
            rows = hash_rows_in_place(bags.ids.numpy().view(np.uint64), starts, self.rows)
            return RowBags(torch.from_numpy(rows), bags.offsets)
        seeds = self.seeds.repeat_interleave(bags.counts, output_size=bags.ids.numel())
        return RowBags(hash_rows(bags.ids, seeds, self.rows), bags.offsets)

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
        self.seed = hashing.probe_seed(vocabulary.feature, 0)
        self.buckets = len(vocabulary.keys)
        self.register_buffer("keys", torch.from_numpy(vocabulary.keys), persistent=False)
        self.register_buffer("places", torch.from_numpy(vocabulary.rows + 1), persistent=False)

    def lookup(self, ids: Tensor) -> Tensor:
        """Row of each id plus one, int64, the shape of ``ids``; 0 where it is unknown."""
        buckets = hash_rows(ids, self.seed, self.buckets)
        hit = self.keys[buckets] == ids[..., None]
        return torch.where(hit, self.places[buckets], 0).sum(dim=-1)

    def forward(self, bags: JoinedBags) -> RowBags:
        """Rows of the known ids; the others are dropped from their bags."""
        places = self.lookup(bags.ids)
        known = places > 0
        kept = torch.cat([bags.offsets.new_zeros(1), known.cumsum(0)])
        return RowBags(places[known] - 1, kept[bags.offsets])

    def padded(self, name: str, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - one protocol
        """Rows int64 ``[B, L, 1]`` and the mask of the known ids, ``[B, L]``."""
        places = self.lookup(ids)
        known = (places > 0).to(mask.dtype)
        return (places - known.to(places.dtype))[:, :, None], mask * known


def addressing(group: Group) -> HashedRows | VocabularyRows:
    """The module that turns the group's ids into rows."""
    hashed = isinstance(group.reads[0].address, HashAddress)
    return HashedRows(group) if hashed else VocabularyRows(group)
