"""Encoded items: jagged ids per sparse feature, one array and a presence flag per dense feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muxrec.spec.features import FeatureSpec


@dataclass(frozen=True)
class Jagged:
    """Bags of ids of one sparse feature for C items.

    Attributes:
        ids: Raw 64-bit ids, int64 ``[N]``; bag c is ``ids[offsets[c]:offsets[c + 1]]``.
        offsets: Bag starts, int64 ``[C + 1]``; an empty bag is a missing value.
    """

    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def take(self, items: npt.NDArray[np.int64]) -> Jagged:
        """The bags of ``items``, int64 ``[B]``, in that order."""
        lengths = np.diff(self.offsets)[items]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Jagged(self.ids[np.repeat(self.offsets[items], lengths) + within], offsets)

    def padded(self, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``(ids, mask)``: int64 ``[C, length]`` with 0 in free places, float32 1 where an id is.

        Raises:
            ValueError: A bag holds more than ``length`` ids.
        """
        lengths = np.diff(self.offsets)
        if lengths.size and lengths.max() > length:
            raise ValueError(f"a bag of {lengths.max()} ids does not fit in {length}")
        mask = np.arange(length) < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = self.ids
        return ids, mask.astype(np.float32)


@dataclass(frozen=True)
class Dense:
    """One fixed-size array per item.

    Attributes:
        values: float32 ``[C, W]``, or uint8 ``[C, 3, S, S]`` for pictures; zeros where missing.
        present: bool ``[C]``, whether the item has the value.
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.uint8]
    present: npt.NDArray[np.bool_]

    def take(self, items: npt.NDArray[np.int64]) -> Dense:
        """The rows of ``items``, int64 ``[B]``, in that order."""
        return Dense(self.values[items], self.present[items])


@dataclass(frozen=True)
class ItemArrays:
    """All encoded features of C items.

    Attributes:
        item_keys: Raw 64-bit id of each item, int64 ``[C]``.
        sparse: Feature name -> its bags.
        dense: Feature name -> its values.
    """

    item_keys: npt.NDArray[np.int64]
    sparse: dict[str, Jagged]
    dense: dict[str, Dense]

    def __len__(self) -> int:
        return len(self.item_keys)

    def take(self, items: npt.NDArray[np.int64]) -> ItemArrays:
        """The items at positions ``items``, int64 ``[B]``, in that order, repeats allowed."""
        return ItemArrays(
            self.item_keys[items],
            {name: bags.take(items) for name, bags in self.sparse.items()},
            {name: values.take(items) for name, values in self.dense.items()},
        )

    def onnx_inputs(self, features: tuple[FeatureSpec, ...]) -> dict[str, np.ndarray]:
        """Inputs of the exported graph for these items.

        Sparse feature ``f``: ``f.ids`` int64 ``[B, max_length]`` and ``f.mask`` float32 of the same
        shape. Dense feature ``f``: ``f.values`` (float32 ``[B, W]`` or uint8 ``[B, 3, S, S]``) and
        ``f.present`` float32 ``[B]``.
        """
        inputs: dict[str, np.ndarray] = {}
        for feature in features:
            if feature.is_sparse:
                ids, mask = self.sparse[feature.name].padded(feature.max_length)
                inputs[f"{feature.name}.ids"], inputs[f"{feature.name}.mask"] = ids, mask
            else:
                dense = self.dense[feature.name]
                inputs[f"{feature.name}.values"] = dense.values
                inputs[f"{feature.name}.present"] = dense.present.astype(np.float32)
        return inputs
