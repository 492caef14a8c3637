"""Labelled impressions of one data set: columns of raw ids, labels, and who is in which part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from muxrec.errors import DataError
from muxrec.features.arrays import Jagged
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import Int64Array

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ClickData:
    """A click prediction task.

    Attributes:
        name: Name of the data set.
        features: The inputs, all sparse; which table they read is decided by a method.
        columns: Feature name -> raw ids: int64 ``[N]``, one per impression, or bags of N.
        labels: 1 for a click, else 0, float32 ``[N]``.
        positions: Part -> impressions in it, int64; the parts do not overlap.
        label_rule: What a click is, in words.
        split_rule: How the parts were drawn, in words.
    """

    name: str
    features: tuple[FeatureSpec, ...]
    columns: Mapping[str, Int64Array | Jagged]
    labels: npt.NDArray[np.float32]
    positions: Mapping[Part, Int64Array]
    label_rule: str
    split_rule: str

    def ids(self, feature: str, part: Part) -> Int64Array:
        """Raw ids of ``feature`` in one part, int64, a bag's ids side by side."""
        column, positions = self.columns[feature], self.positions[part]
        return column.take(positions).ids if isinstance(column, Jagged) else column[positions]

    def digest(self) -> str:
        """Hex SHA-256 of everything that a result depends on."""
        found = hashlib.sha256()
        for feature in self.features:
            found.update(repr(feature).encode())
            column = self.columns[feature.name]
            arrays = [column.ids, column.offsets] if isinstance(column, Jagged) else [column]
            for array in arrays:
                found.update(array.astype("<i8").tobytes())
        found.update(self.labels.astype("<f4").tobytes())
        for part in ("train", "validation", "test"):
            found.update(self.positions[part].astype("<i8").tobytes())
        return found.hexdigest()


def random_parts(
    rows: int, *, train: int, validation: int, test: int, seed: int
) -> dict[Part, Int64Array]:
    """Disjoint random parts of ``rows`` impressions.

    Raises:
        DataError: There are fewer impressions than the parts take.
    """
    if rows < train + validation + test:
        raise DataError(
            f"expected at least {train + validation + test:,} impressions for {train:,} training, "
            f"{validation:,} validation and {test:,} test rows, got {rows:,}: is a file cut short?"
        )
    order = np.random.default_rng(seed).permutation(rows)
    ends = np.cumsum([train, validation, test])
    first, second, third = np.split(order[: ends[-1]], ends[:-1])
    return {"train": first, "validation": second, "test": third}
