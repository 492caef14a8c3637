"""Dense features for the untrained baselines, prepared only when one is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from muxrec.data.snapshot import Snapshot
from muxrec.evaluation.baselines.tfidf import item_texts
from muxrec.evaluation.baselines.untrained import UNTRAINED_TEXT
from muxrec.evaluation.baselines.view import training_view
from muxrec.features.arrays import Dense
from muxrec.features.prepare import prepare_items
from muxrec.recipe.model import Recipe

log = logging.getLogger("muxrec.evaluation")


class UntrainedDense(Mapping[str, Dense]):
    """Dense features by name; the first one read encodes the catalogue (minutes without a cache).

    Args:
        recipe: The recipe; its dense features are the keys, ``evaluation.untrained_text`` one more.
        snapshot: The dataset.
        cache: Folder of encoded texts and exported encoders.
    """

    def __init__(self, recipe: Recipe, snapshot: Snapshot, *, cache: Path) -> None:
        self._recipe, self._snapshot, self._cache = recipe, snapshot, cache
        self._names = [f.name for f in recipe.features if f.kind in ("text", "image")]
        if recipe.evaluation.untrained_text:
            self._names.append(UNTRAINED_TEXT)

    def __getitem__(self, name: str) -> Dense:
        if name not in self._names:
            raise KeyError(name)
        return self._untrained_text if name == UNTRAINED_TEXT else self._prepared[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def _prepared(self) -> dict[str, Dense]:
        return prepare_items(self._recipe, self._snapshot, cache=self._cache).arrays.dense

    @cached_property
    def _untrained_text(self) -> Dense:
        from muxrec.encoders.text_source import exported_encoder
        from muxrec.features.text_onnx import TextEncoder, encode_cached

        folder = exported_encoder(self._recipe.evaluation.untrained_text or "", self._cache)
        encoder = TextEncoder(folder, threads=os.cpu_count() or 1)
        view = training_view(self._snapshot, self._snapshot.items(), recipe=self._recipe)
        texts = item_texts(view)
        present = np.array([bool(text.strip()) for text in texts])
        values = np.zeros((len(texts), encoder.width), dtype=np.float32)
        values[present] = encode_cached(encoder, [t for t in texts if t.strip()], self._cache)
        return Dense(values, present)
