"""``cafe``: the ids whose gradients are largest own rows, all others share hashed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import probe_seed
from muxrec.spec.vocabulary import IDS_PER_BUCKET, Vocabulary, build_vocabulary
from muxrec.tables.methods.adapt import Sum
from muxrec.tables.methods.addresses import (
    Address,
    ColdAddress,
    HashAddress,
    HotAddress,
    VocabularyIndex,
)
from muxrec.tables.methods.dealing import dealt_rows
from muxrec.tables.methods.gradient_norms import OwnOrShared
from muxrec.tables.methods.hot_keys import HotKeys, OwnRow, SharedRow
from muxrec.tables.methods.joining import join_lowered
from muxrec.tables.methods.protocol import Access, Arrays, Declared, Lowered, Method, Read


class Cafe(Method):
    """Hot rows are given and taken while training, by a sketch of gradient norms.

    Every step adds the norms of the ids' gradients, scaled to 1 on average, to their scores. Every
    ``every`` steps scores fade by ``decay``; ids above ``threshold`` get free rows or those of much
    weaker ids, beginning with the vector that they have, so no prediction changes at that moment,
    and without momentum, so they learn as fast as new rows do. An id that loses its row reads its
    hashed one again, and what it had learned is lost, as in the paper. Ids need not be known
    beforehand; bags of several ids may be read, unlike in the published code.

    Served are a list of the hot ids, about 14 bytes each, and both tables, without the sketch.
    """

    title = "ids with the largest gradients own rows while they last, all others share hashed ones"
    source = "Zhang et al., SIGMOD 2024"

    def lower(self, declared: Declared) -> Lowered:
        """Two arrays per reader, of its share of the rows."""
        parts, owners = [], []
        for reader, total, hot in _shares(declared):
            if not hot:
                parts.append(_hashed(declared, reader, total))
                continue
            keys = HotKeys(hot, probe_seed(reader.name, 1))
            module = OwnOrShared(keys, declared.table.width)
            addresses = OwnRow(keys), SharedRow(keys, probe_seed(reader.name, 0))
            lowered = _split(declared, reader, (hot, total - hot), addresses, module)
            parts.append(replace(lowered, per_id=frozenset({reader.name})))
            owners.append(Owners(reader.name, lowered.tables[0].name, module))
        return replace(join_lowered(parts), hook=Rounds(tuple(owners), declared))

    def served_shape(self, declared: Declared) -> Lowered:
        """As if every hot row had an owner."""
        return join_lowered(
            [
                _served(declared, reader, total - hot, _any_ids(reader, hot))
                for reader, total, hot in _shares(declared)
            ]
        )

    def freeze(
        self, declared: Declared, rows: Arrays, combines: Mapping[str, nn.Module]
    ) -> Lowered:
        """The owned rows, in the order of the list of their owners, and the hashed ones."""
        parts = []
        for reader, total, hot in _shares(declared):
            module, values = combines.get(reader.name), {}
            words = _any_ids(reader, 0)
            if isinstance(module, OwnOrShared):
                keys = module.keys.cpu()
                words = build_vocabulary(reader.name, keys.owned()[0].numpy())
                owned = keys(torch.from_numpy(words.ids()))
                name = declared.name_of(reader, "hot")
                values = {name: rows[name][owned]} if words.size else {}
            cold = declared.name_of(reader, "cold")
            lowered = _served(declared, reader, total - hot, words)
            parts.append(replace(lowered, values={**values, cold: rows[cold]}))
        return join_lowered(parts)


def _shares(declared: Declared) -> list[tuple[FeatureSpec, int, int]]:
    """Every reader with its rows in all and its hot rows; at least one row is shared."""
    rows, hot = dealt_rows(declared), declared.option("hot")
    totals = [(reader, rows[reader.name]) for reader in declared.readers]
    return [(reader, total, min(total - 1, int(total * hot))) for reader, total in totals]


def _hashed(declared: Declared, reader: FeatureSpec, rows: int) -> Lowered:
    width = declared.table.width
    table = declared.physical(declared.name_of(reader, "cold"), rows, width)
    address = HashAddress(probe_seed(reader.name, 0))
    return Lowered((table,), (Read(reader.name, 0, table.name, address),), {reader.name: width})


def _split(
    declared: Declared,
    reader: FeatureSpec,
    rows: tuple[int, int],
    addresses: tuple[Address, Address],
    module: nn.Module,
) -> Lowered:
    width = declared.table.width
    tables = tuple(
        declared.physical(declared.name_of(reader, part), count, width)
        for part, count in zip(("hot", "cold"), rows, strict=True)
    )
    reads = tuple(
        Read(reader.name, probe, table.name, address)
        for probe, (table, address) in enumerate(zip(tables, addresses, strict=True))
    )
    return Lowered(tables, reads, {reader.name: width}, {reader.name: module})


def _served(declared: Declared, reader: FeatureSpec, cold: int, words: Vocabulary) -> Lowered:
    if not words.size:
        return _hashed(declared, reader, cold)
    index = VocabularyIndex(words)
    addresses = HotAddress(index), ColdAddress(index, probe_seed(reader.name, 0))
    module = Sum(declared.table.width)
    return _split(declared, reader, (words.size, cold), addresses, module)


def _any_ids(reader: FeatureSpec, count: int) -> Vocabulary:
    """A vocabulary of the size of ``count`` ids, for what counts bytes."""
    starts = np.zeros(max(1, count // IDS_PER_BUCKET) + 1, dtype=np.int32)
    keys, rows = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int32)
    return Vocabulary(reader.name, keys, starts, rows, keys)


@dataclass(frozen=True, eq=False)
class Owners:
    """What a round works on.

    Attributes:
        feature: The reader.
        table: Its table of hot rows.
        module: Its map, which knows who owns them.
    """

    feature: str
    table: str
    module: OwnOrShared


class Rounds:
    """Scores after every step, owners after every ``every`` of them; all processes alike."""

    def __init__(self, owners: tuple[Owners, ...], declared: Declared) -> None:
        self.owners = owners
        self.every, self.decay = declared.whole("every"), declared.option("decay")
        self.threshold = declared.option("threshold")

    @torch.no_grad()
    def after_step(self, access: Access, *, step: int, share: float) -> None:
        """Add the step's gradients; see :class:`Cafe`."""
        del share
        for each in self.owners:
            each.module.keys.add(*each.module.take_scores())
            if (step + 1) % self.every == 0:
                each.module.keys.fade(self.decay, self.threshold)
                self._admit(each, access)

    def _admit(self, each: Owners, access: Access) -> None:
        admitted = each.module.keys.candidates(self.threshold)
        if not len(admitted.ids):
            return
        vectors = access.read_ids(each.feature, admitted.ids)
        start, rows, momentum = access.local(each.table)
        mine = (admitted.rows >= start) & (admitted.rows < start + len(rows))
        own: Tensor = admitted.rows[mine] - start
        rows[own] = vectors[mine].to(rows.dtype)
        momentum[own] = 0
        each.module.keys.admit(admitted)
