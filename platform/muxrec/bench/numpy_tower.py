"""The item tower once more, in plain numpy: a yardstick of speed and a third opinion on the result.

It covers linear towers (``hidden: 0``) with gate fusion over looked-up rows and dense vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from muxrec.export.quantise import tables_of
from muxrec.model import ItemModel
from muxrec.spec import hashing
from muxrec.spec.features import FeatureSpec
from muxrec.spec.vocabulary import Vocabulary

Float32Array = npt.NDArray[np.float32]
CLAMP, FLOOR = 8.0, 1e-6


class NumpyTower:
    """An item model whose weights were copied out of torch.

    Args:
        model: A model with reference tables.
        vocabularies: Known ids of features on full tables.
    """

    def __init__(self, model: ItemModel, vocabularies: Mapping[str, Vocabulary]) -> None:
        self.settings = model.tower.settings
        self.features = model.tower.features
        self.modalities = model.tower.modalities
        self.vocabularies = vocabularies
        self.weights = {k: v.numpy() for k, v in model.tower.state_dict().items()}
        state = tables_of(model).export_state().tables
        self.tables = {name: rows.weight.numpy() for name, rows in state.items()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Float32Array:
        """Unit vectors, float32 ``[B, D]``, of graph inputs as ``ItemArrays.onnx_inputs`` gives."""
        vectors, present = self._modalities(inputs)
        fused, is_fused = vectors[:, 0], present[:, 0]
        for step in range(1, len(self.modalities)):
            new, is_new = vectors[:, step], present[:, step]
            gate = self._linear(f"fusion.gates.{step - 1}", np.concatenate([fused, new], axis=1))
            z = np.where((is_fused & is_new)[:, None], 1 / (1 + np.exp(-gate)), 1.0)
            z = np.where((is_new & ~is_fused)[:, None], 0.0, z).astype(np.float32)
            fused = np.asarray(z * fused + (1 - z) * new, dtype=np.float32)
            is_fused = is_fused | is_new
        head = fused @ self.weights["head.weight"].T
        return head / np.maximum(np.linalg.norm(head, axis=1, keepdims=True), FLOOR)

    def _modalities(
        self, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
        found = {feature.name: self._project(feature, inputs) for feature in self.features}
        vectors, present = [], []
        for modality in self.modalities:
            mine = [found[f.name] for f in self.features if f.modality == modality]
            vectors.append(self._of_one_length(np.sum([vector for vector, _ in mine], axis=0)))
            present.append(np.any([is_present for _, is_present in mine], axis=0))
        return np.stack(vectors, axis=1), np.stack(present, axis=1)

    def _of_one_length(self, vectors: Float32Array) -> Float32Array:
        """The vectors at length sqrt(D) where the tower has it so; zeros stay zeros."""
        if not self.settings.normalise:
            return vectors
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norm, FLOOR) * np.float32(np.sqrt(vectors.shape[1]))

    def _project(
        self, feature: FeatureSpec, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
        prefix = f"encoders.{feature.modality}.projections.of:{feature.name}"
        if feature.is_sparse:
            mask = inputs[f"{feature.name}.mask"]
            values = self._pool(feature, inputs[f"{feature.name}.ids"], mask)
            present = np.asarray(mask.any(axis=1))
        else:
            present = np.asarray(inputs[f"{feature.name}.present"] > 0)
            centred = inputs[f"{feature.name}.values"] - self.weights[f"{prefix}.prepare.mean"]
            values = np.clip(centred * self.weights[f"{prefix}.prepare.scale"], -CLAMP, CLAMP)
        values = np.asarray(values, dtype=np.float32)
        return self._linear(f"{prefix}.linear", values) * present[:, None], present

    def _pool(
        self, feature: FeatureSpec, ids: npt.NDArray[np.int64], mask: Float32Array
    ) -> Float32Array:
        own = f"{feature.table}.{feature.name}"
        weight = self.tables[own if own in self.tables else feature.table or ""]
        if own in self.tables:
            rows = self.vocabularies[feature.name].lookup(ids)
            mask = mask * (rows >= 0)
            probes = [np.maximum(rows, 0)]
        else:
            probes = [
                hashing.hash_rows(ids, name=feature.name, probe=probe, rows=len(weight))
                for probe in range(feature.probes)
            ]
        sums = [np.einsum("bld,bl->bd", weight[rows], mask) for rows in probes]
        exponent = {"sum": 0.0, "mean": 1.0, "sqrt": 0.5}[feature.pooling]
        counts = np.maximum(mask.sum(axis=1, keepdims=True), 1.0) ** exponent
        return (np.concatenate(sums, axis=1) / counts).astype(np.float32)

    def _linear(self, name: str, values: Float32Array) -> Float32Array:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
