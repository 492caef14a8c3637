"""The two controls: the same training on inputs whose meaning was destroyed.

*permuted_images*: the images of the items that have one are dealt out anew among them. Which items
have an image, and how images are distributed, stays; what an image says about its item is gone. A
gain of the image tower that survives this is no gain of images.

*random_encoders*: every frozen encoder's vector is replaced by a random one that depends on the
vector's bytes alone, as if the encoder were a random projection of a hash of its input. Equal
inputs keep equal vectors and every item keeps a fingerprint of full width, so a model can memorise
by it as well as by an id; nothing similar looks similar any more, so nothing carries over to items
without behaviour. Inputs that are trained (ids, hashed words, pixels of a ``conv`` feature) are
left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from muxrec.features.arrays import Dense, ItemArrays
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import BASE_SEED, hash_bytes

ControlName = Literal["permuted_images", "random_encoders"]
Features = tuple[FeatureSpec, ...]


def image_features(features: Features) -> list[str]:
    """Names of the features of the image modality."""
    return [feature.name for feature in features if feature.modality == "image"]


def frozen_features(features: Features) -> list[str]:
    """Names of the dense features that come from an encoder which training leaves as it is."""
    return [f.name for f in features if not f.is_sparse and f.encoder != "conv"]


def permute_images(arrays: ItemArrays, features: Features, *, seed: int) -> ItemArrays:
    """Arrays whose image features were dealt out anew, together, among the items that have any.

    Args:
        arrays: Encoded items.
        features: The declared features.
        seed: Seed of the permutation.
    """
    names = image_features(features)
    has_image = np.zeros(len(arrays), dtype=bool)
    for name in names:
        is_sparse = name in arrays.sparse
        has_image |= (
            np.diff(arrays.sparse[name].offsets) > 0 if is_sparse else arrays.dense[name].present
        )
    items = np.flatnonzero(has_image)
    dealt = np.arange(len(arrays))
    dealt[items] = np.random.default_rng([seed, len(arrays)]).permutation(items)
    sparse = {n: x.take(dealt) if n in names else x for n, x in arrays.sparse.items()}
    dense = {n: x.take(dealt) if n in names else x for n, x in arrays.dense.items()}
    return ItemArrays(arrays.item_keys, sparse, dense)


def randomise_encoders(arrays: ItemArrays, features: Features, *, seed: int) -> ItemArrays:
    """Arrays whose frozen dense vectors are standard normal, seeded by the vector's own bytes.

    Args:
        arrays: Encoded items.
        features: The declared features.
        seed: Seed of the random encoder.
    """
    frozen = set(frozen_features(features))
    dense = {
        name: Dense(_random_rows(x.values, x.present, seed), x.present) if name in frozen else x
        for name, x in arrays.dense.items()
    }
    return ItemArrays(arrays.item_keys, arrays.sparse, dense)


def _random_rows(
    values: npt.NDArray[np.generic], present: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.float32]:
    out = np.zeros(values.shape, dtype=np.float32)
    rows = np.flatnonzero(present)
    hashes = hash_bytes([values[row].tobytes() for row in rows], BASE_SEED).view(np.uint64)
    for row, content in zip(rows, hashes, strict=True):
        out[row] = np.random.default_rng([seed, int(content)]).standard_normal(values.shape[1:])
    return out


class Control:
    """How a control changes arrays, and which features it needs."""

    def __init__(
        self,
        needs: Callable[[Features], list[str]],
        apply: Callable[..., ItemArrays],
    ) -> None:
        self.needs, self.apply = needs, apply


CONTROLS: dict[ControlName, Control] = {
    "permuted_images": Control(image_features, permute_images),
    "random_encoders": Control(frozen_features, randomise_encoders),
}
"""Control's name -> what it does; a control without any feature to change is not run."""
