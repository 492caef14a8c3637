"""A sketch of the ids that gradients need most, and the rows that some of them own.

Ids are hashed to buckets of four slots. A slot holds an id, its score, and the hot row that it
owns, if any. What is known of an id that comes into a full bucket is only that its score is at most
the weakest one there: it takes over that slot and its score (SpaceSaving), and the part taken over
is kept beside it as its possible error. Admission asks for the score without that part, so an id
that came once is not mistaken for a frequent one.

Source: Zhang et al., CAFE, SIGMOD 2024; Metwally et al., Efficient Computation of Frequent and
Top-k Elements in Data Streams, ICDT 2005.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.methods.addresses import DROPPED, Address

SLOTS = 4
"""Ids per bucket; there are as many buckets as hot rows."""
FREE, COLD = -2, -1
"""Places of slots that own no hot row: empty ones, and those of an id."""
STAYS = 0.5
"""A hot id keeps its row down to this share of the score that it needed to get one."""
MARGIN = 1.5
"""A row changes hands for a score this many times the owner's; like ids would take turns."""


class Admitted(NamedTuple):
    """Ids that are to own a hot row.

    Attributes:
        ids: int64 ``[A]``.
        slots: Their slots, int64 ``[A]``, numbered through all buckets.
        rows: The rows, distinct, int64 ``[A]``.
    """

    ids: Tensor
    slots: Tensor
    rows: Tensor


class HotKeys(nn.Module):
    """Which ids own a hot row; its buffers change in training and belong to checkpoints.

    Args:
        rows: Hot rows, at least 1.
        seed: Signed 64-bit seed of the buckets.

    Attributes:
        keys: Ids, int64 ``[rows, SLOTS]``; anything in a free slot.
        places: Hot row of each, ``COLD`` or ``FREE``, int32, the same shape.
        scores: Scores, float32, the same shape.
        errors: Parts of the scores that an id took over, float32, the same shape.
    """

    keys: Tensor
    places: Tensor
    scores: Tensor
    errors: Tensor

    def __init__(self, rows: int, seed: int) -> None:
        super().__init__()
        self.rows, self.seed = rows, seed
        shape = (rows, SLOTS)
        self.register_buffer("keys", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("places", torch.full(shape, FREE, dtype=torch.int32))
        self.register_buffer("scores", torch.zeros(shape))
        self.register_buffer("errors", torch.zeros(shape))

    def forward(self, ids: Tensor) -> Tensor:
        """Hot row of each id, int64, the shape of ``ids``; ``DROPPED`` where it owns none."""
        buckets = hash_rows(ids, self.seed, self.rows)
        hit = self.keys[buckets] == ids[..., None]
        places = self.places[buckets].to(torch.int64)
        return torch.where(hit, (places + 1).clamp(min=0), 0).sum(dim=-1) + DROPPED

    def add(self, ids: Tensor, scores: Tensor) -> None:
        """Add to the scores of ids; new ones come in.

        Of the new ids in one bucket the four strongest are looked at. Slots of hot ids are never
        taken over.

        Args:
            ids: Distinct ids, int64 ``[U]``.
            scores: What each gains, float32 ``[U]``.
        """
        buckets = hash_rows(ids, self.seed, self.rows)
        held = (self.keys[buckets] == ids[:, None]) & (self.places[buckets] != FREE)
        is_held, slot = held.any(dim=1), held.int().argmax(dim=1)
        self.scores[buckets[is_held], slot[is_held]] += scores[is_held]
        is_new = ~is_held
        self._take_in(ids[is_new], buckets[is_new], scores[is_new])

    def _take_in(self, ids: Tensor, buckets: Tensor, scores: Tensor) -> None:
        """Weaker ids first, so that none takes over a stronger one of the same batch."""
        order = scores.sort(descending=True, stable=True).indices
        order = order[buckets[order].sort(stable=True).indices]
        ids, buckets, scores = ids[order], buckets[order], scores[order]
        rank = torch.arange(len(ids), device=ids.device) - torch.searchsorted(buckets, buckets)
        for turn in reversed(range(SLOTS)):
            mine = rank == turn
            self._replace(ids[mine], buckets[mine], scores[mine])

    def _replace(self, ids: Tensor, buckets: Tensor, scores: Tensor) -> None:
        """Put each id into the weakest slot of its bucket; the buckets are distinct."""
        places = self.places[buckets]
        strength = torch.where(places == FREE, -1.0, self.scores[buckets])
        strength = torch.where(places >= 0, math.inf, strength)
        weakest, slot = strength.min(dim=1)
        fits = weakest < math.inf
        where = (buckets[fits], slot[fits])
        taken = weakest[fits].clamp(min=0)
        self.keys[where], self.places[where] = ids[fits], COLD
        self.scores[where], self.errors[where] = taken + scores[fits], taken

    def fade(self, decay: float, threshold: float) -> None:
        """Multiply all scores by ``decay``; ids far below ``threshold`` lose their rows."""
        self.scores *= decay
        self.errors *= decay
        is_faded = (self.places >= 0) & (self._sure() < STAYS * threshold)
        self.places[is_faded] = COLD

    def _sure(self) -> Tensor:
        """Scores without what was taken over, float32 ``[rows, SLOTS]``."""
        return self.scores - self.errors

    def candidates(self, threshold: float) -> Admitted:
        """The ids that should own a row, strongest first: free rows, then those of weaker ids."""
        sure, places = self._sure().flatten(), self.places.flatten()
        fitting = ((places == COLD) & (sure >= threshold)).nonzero()[:, 0]
        fitting = fitting[sure[fitting].sort(descending=True, stable=True).indices]
        hot = (places >= 0).nonzero()[:, 0]
        hot = hot[sure[hot].sort(stable=True).indices]
        is_free = torch.ones(self.rows, dtype=torch.bool, device=sure.device)
        is_free[places[hot].to(torch.int64)] = False
        free = is_free.nonzero()[:, 0][: len(fitting)]
        rivals = fitting[len(free) :][: len(hot)]
        wins = sure[rivals] > MARGIN * sure[hot[: len(rivals)]]
        # Rivals get weaker and owners stronger, so those that win are the first ones.
        rows = torch.cat([free, places[hot[: len(rivals)]][wins].to(torch.int64)])
        slots = fitting[: len(rows)]
        return Admitted(self.keys.flatten()[slots], slots, rows)

    def admit(self, admitted: Admitted) -> None:
        """Give the ids their rows; who owned one becomes cold."""
        is_given = torch.zeros(self.rows, dtype=torch.bool, device=self.keys.device)
        is_given[admitted.rows] = True
        places = self.places.view(-1)
        owners = places >= 0
        places[owners & is_given[places.clamp(min=0).to(torch.int64)]] = COLD
        places[admitted.slots] = admitted.rows.to(torch.int32)

    def owned(self) -> tuple[Tensor, Tensor]:
        """The ids that own rows, and the rows, int64 ``[n]`` each."""
        hot = self.places >= 0
        return self.keys[hot], self.places[hot].to(torch.int64)


class OwnRow(Address):
    """Ids that own a hot row read it, all others nothing.

    Args:
        keys: Who owns what. The feature's map holds the module; here it is used and no part, so
            that it is counted, saved and moved once.
    """

    drops = True

    def __init__(self, keys: HotKeys) -> None:
        super().__init__()
        self._keys = (keys,)

    @property
    def fingerprint(self) -> str:
        """The buckets; who owns a row changes in training."""
        keys = self._keys[0]
        return f"own row of {keys.rows} {keys.seed}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Rows of hot ids."""
        return self._keys[0](ids)


class SharedRow(Address):
    """Ids that own a hot row read nothing, all others their hashed row.

    Args:
        keys: As in :class:`OwnRow`.
        seed: Signed 64-bit seed of the hashed rows.
    """

    drops = True

    def __init__(self, keys: HotKeys, seed: int) -> None:
        super().__init__()
        self._keys, self.seed = (keys,), seed

    @property
    def fingerprint(self) -> str:
        """The seed; who owns a row changes in training."""
        keys = self._keys[0]
        return f"shared row {self.seed} beside {keys.rows} {keys.seed}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Hashed rows of the ids that own none."""
        return torch.where(self._keys[0](ids) >= 0, DROPPED, hash_rows(ids, self.seed, size))
