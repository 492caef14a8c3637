"""The item tower in onnxruntime: encoded items in, vectors and their parts out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from muxrec.bundle.format import (
    ONNX_FEATURES_HASH,
    ONNX_HASH_VERSION,
    ONNX_MODALITIES,
    features_hash,
)
from muxrec.errors import BundleError, DataError, HashMismatchError
from muxrec.features.arrays import ItemArrays
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import HASH_VERSION

Float32Array = npt.NDArray[np.float32]
Provider = Literal["cpu", "cuda"]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
DTYPES = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(float)": np.dtype(np.float32),
    "tensor(uint8)": np.dtype(np.uint8),
}


class TowerSession:
    """An exported tower, ready to run on one thread.

    Attributes:
        features: Features whose arrays it takes.
        modalities: Name of each of the M parts of a vector.
    """

    def __init__(
        self, path: Path, *, features: Sequence[FeatureSpec], provider: Provider = "cpu"
    ) -> None:
        """Load the graph at ``path``, whose SHA-256 the caller has compared.

        Raises:
            BundleError: The graph is damaged, belongs to other features, or the provider is away.
            HashMismatchError: It was exported with another hash spec.
        """
        self.features = tuple(features)
        self._session = _open_session(path, provider)
        metadata = self._session.get_modelmeta().custom_metadata_map
        _check_metadata(path, metadata, self.features)
        self.modalities: tuple[str, ...] = tuple(json.loads(metadata[ONNX_MODALITIES]))
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self._width = int(self._session.get_outputs()[0].shape[-1])

    def encode(
        self, arrays: ItemArrays, *, batch_size: int = 256
    ) -> tuple[Float32Array, Float32Array]:
        """Vectors of encoded items.

        Args:
            arrays: Encoded features of C items.
            batch_size: Items per run of the graph.

        Returns:
            ``(vectors, parts)``: float32 ``[C, D]`` and ``[C, M, D]``; the parts of an item sum to
            its vector. No items give empty arrays.

        Raises:
            DataError: An array has a wrong type or shape, or the result is not finite.
        """
        count = len(arrays)
        vectors = np.empty((count, self._width), dtype=np.float32)
        parts = np.empty((count, len(self.modalities), self._width), dtype=np.float32)
        for start in range(0, count, batch_size):
            chosen = np.arange(start, min(start + batch_size, count))
            batch = arrays.take(chosen).onnx_inputs(self.features)
            vectors[chosen], parts[chosen] = self.run(batch)
        return vectors, parts

    def run(self, inputs: Mapping[str, np.ndarray]) -> tuple[Float32Array, Float32Array]:
        """Vectors of one batch of graph inputs, as ``ItemArrays.onnx_inputs`` makes them.

        Raises:
            DataError: An input is missing, unknown, of a wrong type or shape, or the batch is
                empty, or the result is not finite.
        """
        self._check_inputs(inputs)
        outputs = self._session.run(["vector", "parts"], dict(inputs))
        vectors, parts = np.asarray(outputs[0]), np.asarray(outputs[1])
        if not (np.isfinite(vectors).all() and np.isfinite(parts).all()):
            raise DataError("the tower gave NaN or infinity: an input value is not finite")
        return vectors, parts

    def _check_inputs(self, inputs: Mapping[str, np.ndarray]) -> None:
        if inputs.keys() != self._inputs.keys():
            different = sorted(inputs.keys() ^ self._inputs.keys())
            raise DataError(f"the tower's inputs differ from what came: {', '.join(different)}")
        batch = len(next(iter(inputs.values())))
        for name, value in inputs.items():
            entry = self._inputs[name]
            expected = [batch, *entry.shape[1:]]
            if value.dtype != DTYPES.get(entry.type) or list(value.shape) != expected or not batch:
                raise DataError(
                    f"{name} must be {entry.type} {expected} with at least one item, "
                    f"got {value.dtype} {list(value.shape)}"
                )


def _open_session(path: Path, provider: Provider) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Spinning threads took p99 from under 1 ms to tens of ms on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    wanted = PROVIDERS[provider]
    try:
        session = ort.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"{path} cannot be loaded by onnxruntime: {reason}") from error
    active = session.get_providers()
    # onnxruntime falls back to the CPU with nothing but a line on stderr.
    if active[0] != wanted:
        raise BundleError(
            f"onnxruntime runs {path} on {active[0]}, not on {wanted} as configured: "
            "install onnxruntime-gpu with its CUDA libraries or choose cpu"
        )
    return session


def _check_metadata(
    path: Path, metadata: Mapping[str, str], features: tuple[FeatureSpec, ...]
) -> None:
    found = metadata.get(ONNX_HASH_VERSION)
    if found != HASH_VERSION:
        raise HashMismatchError(
            f"{path} was exported with hash spec {found}, this muxrec knows {HASH_VERSION}: "
            "export it again"
        )
    if metadata.get(ONNX_FEATURES_HASH) != features_hash(features) or (
        ONNX_MODALITIES not in metadata
    ):
        raise BundleError(f"{path} was exported for other features: the bundle is mixed")
