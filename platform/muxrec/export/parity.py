"""The proof that the exported graph gives what the trained model gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from muxrec.bundle.tower import TowerSession
from muxrec.data.batch import ItemBatch
from muxrec.errors import BundleError
from muxrec.features.arrays import Dense, ItemArrays, Jagged
from muxrec.index import best_of
from muxrec.model import ItemModel
from muxrec.recipe.model import Export
from muxrec.spec.features import FeatureSpec
from muxrec.training.build import arrays_of
from muxrec.training.encode import encode_catalogue

Float32Array = npt.NDArray[np.float32]
BATCH_SIZES = (1, 2, 31, 257)
BLOCK = 512
TOP = 10
TIE = 1e-6
INT64 = np.iinfo(np.int64)
STRANGE_IDS = np.array([INT64.min, INT64.min + 1, -1, 0, 1, INT64.max, 2**32, -(2**32)])


@dataclass(frozen=True)
class Parity:
    """How far two encodings of the same items are apart.

    Attributes:
        items: Items compared.
        max_abs_error: Largest difference of a number of a vector or part.
        same_top10: Share of items whose ten nearest others are the same set.
    """

    items: int
    max_abs_error: float
    same_top10: float

    def as_metrics(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def prove_parity(
    model: ItemModel, tower: TowerSession, arrays: ItemArrays, *, limits: Export
) -> tuple[Parity, Float32Array, Float32Array]:
    """Compare ``tower`` with ``model`` on the catalogue and on strange inputs.

    Args:
        model: The model as served, see ``served_model``.
        tower: The exported graph in onnxruntime.
        arrays: The encoded catalogue, C items.
        limits: ``max_abs_error`` and ``min_same_top10``.

    Returns:
        The catalogue's parity, and the vectors float32 ``[C, D]`` and parts ``[C, M, D]`` that the
        graph gave.

    Raises:
        BundleError: A limit is broken; the message holds the numbers.
    """
    expected = encode_catalogue(model, arrays)
    found = tower.encode(arrays)
    parity = Parity(len(arrays), max_error(expected, found), same_top(expected[0], found[0], k=TOP))
    if parity.max_abs_error > limits.max_abs_error or parity.same_top10 < limits.min_same_top10:
        raise BundleError(
            f"the exported graph differs from torch: largest error {parity.max_abs_error:.2e} "
            f"(at most {limits.max_abs_error:g}), same top 10 for {parity.same_top10:.4f} of "
            f"{parity.items} items (at least {limits.min_same_top10:g}): not exported"
        )
    _check_strange(model, tower, arrays, limits)
    return parity, *found


def max_error(
    left: tuple[Float32Array, Float32Array], right: tuple[Float32Array, Float32Array]
) -> float:
    """Largest absolute difference of vectors or parts; 0 for no items."""
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(left, right, strict=True))


def same_top(left: Float32Array, right: Float32Array, *, k: int) -> float:
    """Share of items with the same ``k`` nearest others by either of two sets of vectors.

    Items whose scores lie within ``TIE`` of each other may change places: two engines sum the same
    products in another order, and catalogues hold items with the same content.
    """
    count = len(left)
    k = min(k, count - 1)
    if k < 1:
        return 1.0
    same = 0
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        scores = left[rows] @ left.T
        other = right[rows] @ right.T
        for matrix in (scores, other):
            matrix[np.arange(len(rows)), rows] = -np.inf
        best, chosen = best_of(scores, k)[1], best_of(other, k)[0]
        # Any set whose every score reaches the k-th best is the top k, up to ties.
        reached = np.take_along_axis(scores, chosen, axis=1) >= best[:, -1:] - TIE
        same += int(reached.all(axis=1).sum())
    return same / count


def _check_strange(
    model: ItemModel, tower: TowerSession, arrays: ItemArrays, limits: Export
) -> None:
    for what, items in strange_inputs(arrays, tower.features).items():
        found = tower.encode(items, batch_size=len(items))
        error = max_error(_answers(model, items), found)
        if error > limits.max_abs_error:
            raise BundleError(
                f"the exported graph differs from torch on {what}: largest error {error:.2e}, "
                f"at most {limits.max_abs_error:g}: not exported"
            )


@torch.inference_mode()
def _answers(model: ItemModel, items: ItemArrays) -> tuple[Float32Array, Float32Array]:
    output = model(ItemBatch.from_arrays(arrays_of(items, model.tower.features)))
    return output.vector.numpy(), output.parts.numpy()


def strange_inputs(arrays: ItemArrays, features: Sequence[FeatureSpec]) -> dict[str, ItemArrays]:
    """Inputs that a catalogue seldom holds, by name: batch sizes, unknown ids, missing values."""
    count = len(arrays)
    batches = {
        f"a batch of {size}": arrays.take(np.arange(size) * 7919 % count) for size in BATCH_SIZES
    }
    sample = arrays.take(np.arange(min(count, 64)))
    return {
        **batches,
        "extreme and unknown ids": _with_strange_ids(sample, features),
        "items that lack everything": _without_values(sample),
        "items that lack all ids": ItemArrays(
            sample.item_keys, {k: _empty(len(sample)) for k in sample.sparse}, sample.dense
        ),
    }


def _with_strange_ids(arrays: ItemArrays, features: Sequence[FeatureSpec]) -> ItemArrays:
    """The same items with a full bag of strange ids in every feature, each begun at another id."""
    count, sparse = len(arrays), {}
    for feature in features:
        if feature.is_sparse:
            length = min(feature.max_length, len(STRANGE_IDS))
            ids = [np.roll(STRANGE_IDS, -at)[:length] for at in range(count)]
            sparse[feature.name] = Jagged(np.concatenate(ids), length * np.arange(count + 1))
    return ItemArrays(arrays.item_keys, sparse, arrays.dense)


def _without_values(arrays: ItemArrays) -> ItemArrays:
    count = len(arrays)
    dense = {
        name: Dense(np.zeros_like(dense.values), np.zeros(count, dtype=bool))
        for name, dense in arrays.dense.items()
    }
    return ItemArrays(arrays.item_keys, {k: _empty(count) for k in arrays.sparse}, dense)


def _empty(count: int) -> Jagged:
    return Jagged(np.empty(0, dtype=np.int64), np.zeros(count + 1, dtype=np.int64))
