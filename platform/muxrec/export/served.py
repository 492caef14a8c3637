"""A model exported, proven, and its catalogue encoded by the graph that will be served."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muxrec.bundle import format as names
from muxrec.bundle.tower import TowerSession
from muxrec.export.onnx_graph import export_onnx
from muxrec.export.parity import TOP, Parity, max_error, prove_parity, same_top
from muxrec.export.quantise import served_model
from muxrec.features.arrays import ItemArrays
from muxrec.log import event
from muxrec.model import ItemModel
from muxrec.recipe.model import Export
from muxrec.spec.features import FeatureSpec
from muxrec.training.build import arrays_of
from muxrec.training.encode import encode_catalogue

Float32Array = npt.NDArray[np.float32]

log = logging.getLogger("muxrec.export")


@dataclass(frozen=True)
class ServedTower:
    """An exported tower and what it makes of the catalogue.

    Attributes:
        path: The graph.
        features: Its inputs.
        arrays: The catalogue, encoded for them.
        vectors: float32 ``[C, D]``, by onnxruntime.
        parts: float32 ``[C, M, D]``, by onnxruntime.
        parity: Graph against torch.
        quantisation: Graph with tables in their served formats against torch with fp32 ones; None
            where every format is exact.
    """

    path: Path
    features: tuple[FeatureSpec, ...]
    arrays: ItemArrays
    vectors: Float32Array
    parts: Float32Array
    parity: Parity
    quantisation: Parity | None

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The proofs by name."""
        proofs = {"parity": self.parity, "quantisation": self.quantisation}
        return {name: proof.as_metrics() for name, proof in proofs.items() if proof is not None}


def export_and_prove(
    model: ItemModel, arrays: ItemArrays, folder: Path, *, limits: Export
) -> ServedTower:
    """Write the graph of ``model`` to ``folder`` and prove it.

    Args:
        model: A trained model with reference tables.
        arrays: The encoded catalogue.
        folder: Where the graph goes.
        limits: Opset and limits of the differences.

    Raises:
        BundleError: The graph differs from torch by more than the limits.
    """
    features = model.tower.features
    arrays = arrays_of(arrays, features)
    path = folder / names.TOWER
    export_onnx(model, arrays, path, opset=limits.opset)
    tower = TowerSession(path, features=features)
    served = served_model(model)
    parity, vectors, parts = prove_parity(served, tower, arrays, limits=limits)
    log.info(event("parity", error=parity.max_abs_error, same_top10=parity.same_top10))
    lost = None
    if served is not model:
        exact = encode_catalogue(model, arrays)
        same = same_top(exact[0], vectors, k=TOP)
        lost = Parity(len(arrays), max_error(exact, (vectors, parts)), same)
        log.info(event("quantisation", error=lost.max_abs_error, same_top10=lost.same_top10))
    return ServedTower(path, features, arrays, vectors, parts, parity, lost)
