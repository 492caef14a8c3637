"""A batch of items as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from muxrec.features.arrays import ItemArrays
from muxrec.tables.bags import Bags, bags_from_jagged


@dataclass(frozen=True)
class ItemBatch:
    """Encoded features of B items on one device.

    Attributes:
        sparse: Sparse feature -> its bags.
        dense: Dense feature -> float32 ``[B, W]`` or uint8 ``[B, 3, S, S]``.
        present: Feature -> bool ``[B]``, whether the item has a value; every feature has one.
    """

    sparse: dict[str, Bags]
    dense: dict[str, Tensor]
    present: dict[str, Tensor]

    @property
    def sparse_present(self) -> dict[str, Tensor]:
        """Presence of the sparse features alone."""
        return {name: self.present[name] for name in self.sparse}

    @property
    def dense_present(self) -> dict[str, Tensor]:
        """Presence of the dense features alone."""
        return {name: self.present[name] for name in self.dense}

    @classmethod
    def from_arrays(cls, arrays: ItemArrays, device: torch.device | str = "cpu") -> ItemBatch:
        """The items of ``arrays`` as tensors; on the CPU they share its memory."""
        sparse = {name: bags_from_jagged(bags, device) for name, bags in arrays.sparse.items()}
        dense = {
            name: torch.from_numpy(values.values).to(device)
            for name, values in arrays.dense.items()
        }
        present = {name: bags.lengths() > 0 for name, bags in sparse.items()}
        for name, values in arrays.dense.items():
            present[name] = torch.from_numpy(values.present).to(device)
        return cls(sparse, dense, present)
