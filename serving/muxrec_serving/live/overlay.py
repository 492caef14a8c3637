"""Live items over a bundle: upserts and deletions in memory, copied on every write.

Readers hold one overlay for a whole answer, so a write never shows half of itself. The bundle and
its index stay as they are; live vectors are few and searched exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
RawItem = Mapping[str, Any]


@dataclass(frozen=True)
class LiveItem:
    """One upserted item.

    Attributes:
        raw: The item as it came, pictures as bytes.
        vector: Its unit vector, float32 ``[D]``.
        parts: What each modality gave to the vector, float32 ``[M, D]``.
    """

    raw: RawItem
    vector: Float32Array
    parts: Float32Array


@dataclass(frozen=True)
class Overlay:
    """An immutable set of live items and of hidden bundle positions.

    Attributes:
        items: Item id -> live item, oldest write first.
        deleted: Ids that are answered as unknown.
        hidden: Bundle positions that must not be returned, because they were deleted or replaced;
            bool ``[C]``, None for none.
        vectors: Vectors of ``items`` in order, float32 ``[n, D]``.
    """

    items: dict[str, LiveItem]
    deleted: frozenset[str]
    hidden: npt.NDArray[np.bool_] | None
    vectors: Float32Array

    @classmethod
    def build(
        cls,
        items: dict[str, LiveItem],
        deleted: frozenset[str],
        *,
        positions: Mapping[str, int],
        width: int,
    ) -> Overlay:
        """The overlay of ``items`` and ``deleted`` over a bundle with these ``positions``."""
        covered = [positions[name] for name in (*items, *deleted) if name in positions]
        hidden = None
        if covered:
            hidden = np.zeros(len(positions), dtype=bool)
            hidden[covered] = True
        vectors = np.empty((len(items), width), dtype=np.float32)
        for row, item in enumerate(items.values()):
            vectors[row] = item.vector
        return cls(items, deleted, hidden, vectors)

    @property
    def is_empty(self) -> bool:
        """Whether the bundle alone answers."""
        return not (self.items or self.deleted)

    @property
    def hidden_count(self) -> int:
        """How many bundle positions are hidden."""
        return 0 if self.hidden is None else int(self.hidden.sum())
