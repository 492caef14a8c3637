"""How an id becomes a row: integer arithmetic that torch runs and ONNX exports."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.hash_torch import hash_rows

DROPPED = -1


class Address(nn.Module):
    """Rows of ids; a read of :data:`DROPPED` reads nothing.

    ``forward(ids, index, size)`` takes raw ids, int64 of any shape, each one's row in its
    feature's vocabulary, int64 of the same shape or None, and the physical table's rows; it gives
    rows, int64 of the same shape, in ``[0, size)`` or ``DROPPED`` where ``drops`` is set.
    """

    drops = False

    @property
    def fingerprint(self) -> str:
        """What decides the rows, as text."""
        raise NotImplementedError


class HashAddress(Address):
    """An id's row is its seeded hash, reduced to the table's rows.

    Args:
        seed: Signed 64-bit seed.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    @property
    def fingerprint(self) -> str:
        """The seed."""
        return f"hash {self.seed}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Hashed rows."""
        return hash_rows(ids, self.seed, size)


class IndexAddress(Address):
    """A known id's row is its place in the vocabulary."""

    @property
    def fingerprint(self) -> str:
        """Nothing but the vocabulary decides."""
        return "index"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """The index."""
        return needed(index)


class DigitAddress(Address):
    """A known id's row is one digit of its index: ``index // divisor % base``.

    Args:
        divisor: Product of the lower digits' bases.
        base: Base of this digit; None for the highest one.
    """

    def __init__(self, divisor: int, base: int | None = None) -> None:
        super().__init__()
        self.divisor, self.base = divisor, base

    @property
    def fingerprint(self) -> str:
        """Divisor and base."""
        return f"digit {self.divisor} {self.base}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """The digit. Indices are not negative, so truncation is the floor in every engine."""
        quotient = torch.div(needed(index), self.divisor, rounding_mode="trunc")
        if self.base is None:
            return quotient
        return quotient - torch.div(quotient, self.base, rounding_mode="trunc") * self.base


class MapAddress(Address):
    """A known id's row is looked up: ``codes[index // block] * block + index % block + offset``.

    Args:
        codes: Integers of any type ``[ceil(n / block)]``.
        offset: Added to every row.
        block: Consecutive indices that share a code.
        drops: Whether a code below 0 means that nothing is read.
    """

    codes: Tensor

    def __init__(
        self, codes: Tensor, *, offset: int = 0, block: int = 1, drops: bool = False
    ) -> None:
        super().__init__()
        self.offset, self.block, self.drops = offset, block, drops
        self.register_buffer("codes", codes, persistent=False)

    @property
    def fingerprint(self) -> str:
        """A digest of the codes."""
        return f"map {digest(self.codes)} {self.offset} {self.block}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Mapped rows."""
        if self.block == 1:
            rows = self.codes[needed(index)].to(torch.int64)
        else:
            block = torch.div(needed(index), self.block, rounding_mode="trunc")
            first = self.codes[block].to(torch.int64)
            rows = first * self.block + needed(index) - block * self.block
        if self.drops:
            return torch.where(rows < 0, DROPPED, rows + self.offset)
        return rows + self.offset if self.offset else rows


class VocabularyIndex(nn.Module):
    """The index of raw ids in a vocabulary: one hash, one short run of comparisons, one gather.

    Args:
        vocabulary: The known ids.
    """

    keys: Tensor
    starts: Tensor
    rows: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.seed, self.longest = vocabulary.seed, vocabulary.longest
        self.size = vocabulary.size
        keys, rows = torch.from_numpy(vocabulary.keys), torch.from_numpy(vocabulary.rows)
        if not vocabulary.size:  # A gather needs something to gather from.
            keys, rows = keys.new_zeros(1), rows.new_full((1,), DROPPED)
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("starts", torch.from_numpy(vocabulary.starts), persistent=False)
        self.register_buffer("rows", rows, persistent=False)

    @property
    def fingerprint(self) -> str:
        """A digest of the ids and their rows."""
        return f"vocabulary {digest(self.keys, self.rows)}"

    def forward(self, ids: Tensor) -> Tensor:
        """Row of each id, int64, the shape of ``ids``; ``DROPPED`` where it is unknown."""
        buckets = hash_rows(ids, self.seed, self.starts.numel() - 1)
        first = self.starts[buckets].to(torch.int64)[..., None]
        last = self.starts[buckets + 1].to(torch.int64)[..., None]
        places = first + torch.arange(self.longest, device=ids.device)
        safe = places.clamp(max=self.keys.numel() - 1)
        hit = (self.keys[safe] == ids[..., None]) & (places < last)
        return torch.where(hit, self.rows[safe].to(torch.int64) + 1, 0).sum(dim=-1) - 1


class HotAddress(Address):
    """Ids of a vocabulary read their own rows, all others nothing.

    Args:
        hot: The vocabulary's index; share one module between the addresses that need it.
    """

    drops = True

    def __init__(self, hot: VocabularyIndex) -> None:
        super().__init__()
        self.hot = hot

    @property
    def fingerprint(self) -> str:
        """The hot ids."""
        return f"hot {self.hot.fingerprint}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Rows of the hot ids."""
        return self.hot(ids)


class ColdAddress(Address):
    """Ids of a vocabulary read nothing, all others their hashed row.

    Args:
        hot: The vocabulary's index.
        seed: Signed 64-bit seed.
    """

    drops = True

    def __init__(self, hot: VocabularyIndex, seed: int) -> None:
        super().__init__()
        self.hot, self.seed = hot, seed

    @property
    def fingerprint(self) -> str:
        """The hot ids and the seed."""
        return f"cold {self.seed} {self.hot.fingerprint}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Hashed rows of the ids that are not hot."""
        return torch.where(self.hot(ids) >= 0, DROPPED, hash_rows(ids, self.seed, size))


def needed(index: Tensor | None) -> Tensor:
    """The index, which this address cannot do without."""
    if index is None:
        raise TypeError("this address needs a feature with a vocabulary")
    return index


def digest(*arrays: Tensor) -> str:
    """Sixteen hexadecimal digits that tell arrays apart."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
