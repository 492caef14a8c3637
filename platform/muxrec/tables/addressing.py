"""From bags of raw ids to bags of rows, for all reads of one physical table at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.bags import Bags, join_weights
from muxrec.tables.hash_cpu import hash_rows_in_place, start_seeds
from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.lowering import Group
from muxrec.tables.methods.addresses import Address, HashAddress, VocabularyIndex


class Found(NamedTuple):
    """The ids of one feature that its table knows, in bags.

    Attributes:
        ids: Raw ids, int64 ``[N]``.
        indices: Each one's row in the feature's vocabulary, int64 ``[N]``; None without one.
        offsets: Bag starts, int64 ``[B + 1]``.
        weights: Weight of each id, float32 ``[N]``; None for 1.
    """

    ids: Tensor
    indices: Tensor | None
    offsets: Tensor
    weights: Tensor | None


class RowBags(NamedTuple):
    """Rows to read, read-major: bag ``s * B + b`` belongs to read s of bag b.

    Attributes:
        rows: Rows, int64 ``[M]``.
        offsets: Bag starts, int64 ``[S * B + 1]``.
        weights: Weight of each row, float32 ``[M]``; None for 1.
    """

    rows: Tensor
    offsets: Tensor
    weights: Tensor | None = None


class JoinedBags(NamedTuple):
    """Bags of several features one after another.

    Attributes:
        ids: Raw ids, int64 ``[N]``, feature after feature.
        offsets: Bag starts, int64 ``[F * B + 1]``.
        counts: Ids of each feature, int64 ``[F]``.
        batch_size: B.
        weights: Weight of each id, float32 ``[N]``; None for 1.
    """

    ids: Tensor
    offsets: Tensor
    counts: Tensor
    batch_size: int
    weights: Tensor | None = None


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
        ids, offsets, weights = parts[0]
        return JoinedBags(ids, offsets, offsets[-1:], offsets.numel() - 1, weights)
    each = torch.cat([part.offsets for part in parts]).view(len(parts), -1)
    counts = each[:, -1]
    offsets = _offsets_on_cpu(each) if each.device.type == "cpu" else _offsets(each)
    ids, weights = torch.cat([part.ids for part in parts]), join_weights(parts)
    return JoinedBags(ids, offsets, counts, each.shape[1] - 1, weights)


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


class KnownIds(nn.Module):
    """Drops the ids that a feature's table does not know and finds the index of the others.

    Args:
        known: Vocabulary of each feature that has one.
    """

    def __init__(self, known: Mapping[str, Vocabulary]) -> None:
        super().__init__()
        self._place = {name: at for at, name in enumerate(known)}
        # A list, since a ModuleDict refuses names such as ``type``.
        self.indices = nn.ModuleList(VocabularyIndex(words) for words in known.values())

    def index_of(self, name: str) -> VocabularyIndex | None:
        """The index module of a feature; None where every id is known."""
        at = self._place.get(name)
        return None if at is None else cast(VocabularyIndex, self.indices[at])

    def forward(self, name: str, bags: Bags) -> Found:
        """The known ids of ``bags``."""
        module = self.index_of(name)
        if module is None:
            return all_known(bags)
        index = module(bags.ids)
        known = index >= 0
        if bool(known.all()):
            return Found(bags.ids, index, bags.offsets, bags.weights)
        weights = None if bags.weights is None else bags.weights[known]
        return Found(bags.ids[known], index[known], kept_offsets(known, bags.offsets), weights)

    def padded(self, name: str, ids: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor]:
        """Index of padded ids ``[B, L]``, 0 where unknown, and the mask of the known ones."""
        module = self.index_of(name)
        if module is None:
            return None, mask
        index = module(ids)
        return index.clamp(min=0), mask * (index >= 0).to(mask.dtype)


def all_known(bags: Bags) -> Found:
    """The ids of a feature without a vocabulary: every id is known."""
    return Found(bags.ids, None, bags.offsets, bags.weights)


def kept_offsets(keep: Tensor, offsets: Tensor) -> Tensor:
    """Bag starts after the ids that are not kept, bool ``[N]``, were taken out."""
    return torch.cat([offsets.new_zeros(1), keep.cumsum(0)])[offsets]


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
        seeds = [cast(HashAddress, read.address).seed for read in group.reads]
        places = [group.features.index(read.feature) for read in group.reads]
        self.rows = group.table.rows
        self.names = tuple(read.feature for read in group.reads)
        self.probes = {name: places.count(at) for at, name in enumerate(group.features)}
        self.first = {name: places.index(at) for at, name in enumerate(group.features)}
        self._starts = start_seeds(np.array(seeds, dtype=np.int64))
        self.register_buffer("seeds", torch.tensor(seeds), persistent=False)
        self.register_buffer("slot_features", torch.tensor(places), persistent=False)

    def forward(
        self,
        sparse: Mapping[str, Bags],
        found: Mapping[str, Found],  # noqa: ARG002 - one protocol
        size: int,  # noqa: ARG002 - one protocol
    ) -> RowBags:
        """Rows of every read."""
        bags = join_features(sparse, self.names)
        if bags.ids.device.type == "cpu":
            starts = self._starts.repeat(bags.counts.numpy())
            rows = hash_rows_in_place(bags.ids.numpy().view(np.uint64), starts, self.rows)
            return RowBags(torch.from_numpy(rows), bags.offsets, bags.weights)
        seeds = self.seeds.repeat_interleave(bags.counts, output_size=bags.ids.numel())
        return RowBags(hash_rows(bags.ids, seeds, self.rows), bags.offsets, bags.weights)

    def padded(self, name: str, ids: Tensor, index: Tensor | None) -> tuple[Tensor, None]:  # noqa: ARG002
        """Rows int64 ``[B, L, P]`` of feature ``name``."""
        first = self.first[name]
        seeds = self.seeds[first : first + self.probes[name]]
        return hash_rows(ids[:, :, None], seeds, self.rows), None


class MappedRows(nn.Module):
    """Addresses of any kind, read by read."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.rows, self.is_per_id = group.table.rows, group.is_per_id
        self.names = tuple(read.feature for read in group.reads)
        self.addresses = nn.ModuleList(read.address for read in group.reads)

    def forward(
        self,
        sparse: Mapping[str, Bags],  # noqa: ARG002 - one protocol
        found: Mapping[str, Found],
        size: int,
    ) -> RowBags:
        """Rows of every read; for a group that is read per id, ``size`` bags of one row at most."""
        parts = [
            self._read(cast(Address, address), found[name], size)
            for name, address in zip(self.names, self.addresses, strict=True)
        ]
        return join_rows(parts)

    def _read(self, address: Address, found: Found, size: int) -> RowBags:
        rows, offsets, weights = address(found.ids, found.indices, self.rows), found.offsets, None
        if self.is_per_id:
            offsets = _singles(rows.numel(), size, rows.device)
        else:
            weights = found.weights
        if address.drops:
            keep = rows >= 0
            rows, offsets = rows[keep], kept_offsets(keep, offsets)
            weights = None if weights is None else weights[keep]
        return RowBags(rows, offsets, weights)

    def padded(self, name: str, ids: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows int64 ``[B, L, P]`` of feature ``name``, and whether each is read, or None."""
        mine = [
            cast(Address, address)
            for feature, address in zip(self.names, self.addresses, strict=True)
            if feature == name
        ]
        rows = torch.stack([address(ids, index, self.rows) for address in mine], dim=-1)
        if not any(address.drops for address in mine):
            return rows, None
        return rows.clamp(min=0), rows >= 0


def _singles(count: int, size: int, device: torch.device) -> Tensor:
    """Bag starts of ``count`` bags of one and then empty ones, ``size`` bags in all."""
    return torch.arange(size + 1, device=device).clamp(max=count)


def join_rows(parts: Sequence[RowBags]) -> RowBags:
    """The bags of ``parts`` one after another."""
    if len(parts) == 1:
        return parts[0]
    start, offsets = 0, [parts[0].offsets[:1]]
    for part in parts:
        offsets.append(part.offsets[1:] + start)
        start += part.rows.numel()
    weights = None
    if any(part.weights is not None for part in parts):
        weights = torch.cat(
            [torch.ones(p.rows.shape[0]) if p.weights is None else p.weights for p in parts]
        )
    return RowBags(torch.cat([part.rows for part in parts]), torch.cat(offsets), weights)


def addressing(group: Group) -> HashedRows | MappedRows:
    """The module that turns ids into the group's rows."""
    hashed = all(isinstance(read.address, HashAddress) for read in group.reads)
    return HashedRows(group) if hashed and not group.is_per_id else MappedRows(group)
