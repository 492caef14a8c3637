"""Texts to vectors by an exported transformer: onnxruntime and a tokenizer file, no torch.

Training and the server encode texts through this same class and the same files, so a vector in the
index and a vector of a raw item are made by one graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer
from tqdm import tqdm

from muxrec.errors import BundleError

GRAPH = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
CONFIG = "encoder.json"

Vectors = npt.NDArray[np.float32]


class TextEncoder:
    """A frozen text model: ``text_encoder.onnx``, ``tokenizer.json`` and ``encoder.json``.

    Attributes:
        width: Numbers per vector.
        fingerprint: SHA-256 of the source model's files; vectors of two fingerprints never mix.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        missing = [name for name in (GRAPH, TOKENIZER, CONFIG) if not (folder / name).is_file()]
        if missing:
            raise BundleError(f"{folder} is no exported text encoder: {', '.join(missing)} missing")
        config = json.loads((folder / CONFIG).read_text())
        self.folder = folder
        self.width: int = config["width"]
        self.fingerprint: str = config["fingerprint"]
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(config["max_tokens"])
        self._tokenizer.no_padding()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str], *, batch_size: int = 32, progress: str = "") -> Vectors:
        """Unit vectors of ``texts``, float32 ``[N, width]``; ``[0, width]`` for no texts.

        Args:
            texts: Non-empty strings; texts longer than the model allows are cut.
            batch_size: Texts per run; texts of similar length run together.
            progress: Title of a progress bar; empty for none.
        """
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        out = np.empty((len(tokens), self.width), dtype=np.float32)
        starts = range(0, len(order), batch_size)
        for start in tqdm(starts, desc=progress, disable=None if progress else True, unit="batch"):
            rows = order[start : start + batch_size]
            out[rows] = self._run([tokens[row] for row in rows])
        return out

    def _run(self, tokens: list[list[int]]) -> Vectors:
        length = max(1, max(len(ids) for ids in tokens))
        ids = np.zeros((len(tokens), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, values in enumerate(tokens):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        outputs = self._session.run(["vector"], {"ids": ids, "mask": mask})
        return np.asarray(outputs[0], dtype=np.float32)


def encode_cached(encoder: TextEncoder, texts: Sequence[str], cache: Path) -> Vectors:
    """``encoder.encode(texts)``, kept in ``cache`` under the digest of encoder and texts.

    Encoding a catalogue takes minutes and its input seldom changes between two runs.
    """
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for text in texts:
        digest.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "replace"))
    path = cache / f"text-{digest.hexdigest()[:24]}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    vectors = encoder.encode(texts, progress="encode texts")
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    temporary.replace(path)
    return vectors
