"""Everything that is served from one bundle, loaded once and never changed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from muxrec.bundle import Bundle, TowerSession
from muxrec.bundle.format import RECIPE
from muxrec.bundle.probe import probe_bundle
from muxrec.errors import BundleError, RecipeError
from muxrec.features.encode import FeatureEncoder
from muxrec.index import NeighbourIndex
from muxrec.recipe.load import load_recipe
from muxrec_serving.answering.attributes import AttributeIndex
from muxrec_serving.answering.catalogue import Catalogue
from muxrec_serving.following.origin import Origin

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ServingState:
    """One bundle, ready to answer.

    Attributes:
        origin: Where it came from.
        bundle: The verified bundle.
        vectors: Unit vectors, float32 ``[C, D]``.
        neighbours: Exact neighbours of each item, int64 ``[C, N]``, best first.
        scores: Their inner products, float32 ``[C, N]``.
        catalogue: Its items.
        attributes: Filters over them.
        index: Approximate neighbours of a vector.
        encoder: Raw items to arrays.
        tower: Arrays to vectors.
        loaded_at: Seconds since the epoch.
    """

    origin: Origin
    bundle: Bundle
    vectors: Float32Array
    neighbours: npt.NDArray[np.int64]
    scores: Float32Array
    catalogue: Catalogue
    attributes: AttributeIndex
    index: NeighbourIndex
    encoder: FeatureEncoder
    tower: TowerSession
    loaded_at: float = field(default_factory=time.time)

    @property
    def digest(self) -> str:
        """First twelve hex digits of the bundle's digest, the name that answers carry."""
        return self.bundle.digest[:12]

    @cached_property
    def count(self) -> int:
        """Items C of the bundle."""
        return len(self.catalogue)

    @property
    def width(self) -> int:
        """Width D of a vector."""
        return self.vectors.shape[1]


def load_state(origin: Origin, *, probe: bool = True) -> ServingState:
    """Verify, probe and load the bundle in ``origin.folder``; run it off the event loop.

    A probe process goes first, so that a bundle which crashes its readers crashes that one.

    Raises:
        BundleError: A file was changed, a part cannot be loaded, or a golden answer differs.
    """
    if probe:
        probe_bundle(origin.folder)
    bundle = Bundle.open(origin.folder)
    catalogue = _catalogue(bundle)
    columns = {name: catalogue.cells(name) for name in catalogue.filters}
    # Copies: a mapped file that somebody cuts kills the process, and a mapped row costs more.
    vectors = np.array(bundle.vectors)
    state = ServingState(
        origin=origin,
        bundle=bundle,
        vectors=vectors,
        neighbours=np.array(bundle.neighbours, dtype=np.int64),
        scores=np.array(bundle.scores),
        catalogue=catalogue,
        attributes=AttributeIndex(columns, vectors),
        index=bundle.index(),
        encoder=bundle.encoder(),
        tower=bundle.tower(),
    )
    # Made now, off the event loop, and not by the first request that needs them.
    _ = catalogue.positions, catalogue.title_index, catalogue.by_popularity
    return state


def _catalogue(bundle: Bundle) -> Catalogue:
    path = bundle.folder / RECIPE
    try:
        export = load_recipe(path).export
    except RecipeError as error:
        raise BundleError(f"{path} is no recipe of this version: export again") from error
    held = set(bundle.items.column_names)
    display = tuple(name for name in export.display if name in held)
    return Catalogue(bundle.items, display, tuple(name for name in export.filters if name in held))
