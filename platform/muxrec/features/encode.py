"""The feature encoder: catalogue rows or raw items in, item arrays out, the same everywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from muxrec.data.keys import id_keys
from muxrec.features.arrays import Dense, ItemArrays, Jagged
from muxrec.features.dense import pictures_of, vectors_of
from muxrec.features.ids import bags_of, cut_bags, joined_text, keep_known
from muxrec.features.text_onnx import TextEncoder, encode_cached
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import HASH_VERSION, Int64Array

log = logging.getLogger("muxrec.features")
FEATURES_FILE = "features.json"
KNOWN_IDS_FILE = "known_ids.npy"
TEXT_ENCODERS = "text_encoders"


@dataclass(frozen=True)
class FeatureEncoder:
    """Encodes items by a fixed list of features.

    Attributes:
        features: What is encoded.
        known_ids: Item keys seen in training pairs, int64, sorted; ``id`` features of other items
            are left empty, so that an unseen item falls back on its content.
        integer_columns: Columns whose ids are integers and not strings.
        text_encoders: Text feature name -> its encoder.
        cache: Folder for encoded texts; None encodes every time.
    """

    features: tuple[FeatureSpec, ...]
    known_ids: Int64Array
    integer_columns: frozenset[str] = frozenset()
    text_encoders: Mapping[str, TextEncoder] = field(default_factory=dict)
    cache: Path | None = None

    def encode(self, table: pa.Table) -> ItemArrays:
        """Arrays of the items in ``table``, one per row, in its order.

        Args:
            table: Catalogue rows with ``item_key`` int64 and the features' columns. A column that
                is absent is missing for every item and is warned about.

        Raises:
            DataError: A value is not of its feature's kind; the feature is named.
        """
        keys = table.column("item_key").to_numpy().astype(np.int64, copy=False)
        present = set(table.column_names)
        columns = {n: table.column(n).to_pylist() for n in self.column_names & present}
        return self.encode_columns(keys, columns)

    @property
    def column_names(self) -> set[str]:
        """Catalogue columns that the features read."""
        return {name for feature in self.features for name in feature.columns}

    def encode_columns(self, keys: Int64Array, columns: Mapping[str, list[Any]]) -> ItemArrays:
        """Arrays of C items given as ``keys``, int64 ``[C]``, and columns of C Python values."""
        for name in sorted(self.column_names - columns.keys()):
            log.warning("missing_column column=%s: missing for every item", name)
        missing = [None] * len(keys)
        sparse, dense = {}, {}
        for feature in self.features:
            values = [columns.get(name, missing) for name in feature.columns]
            if feature.is_sparse:
                sparse[feature.name] = self._bags(feature, values, keys)
            else:
                dense[feature.name] = self._dense(feature, values)
        return ItemArrays(keys, sparse, dense)

    def encode_items(self, items: Sequence[Mapping[str, Any]]) -> ItemArrays:
        """Arrays of raw items, each a mapping of catalogue column to value, ``item_id`` optional.

        A picture is a file name, raw bytes, or base64 text with a ``data:`` prefix.
        """
        columns = {n: [item.get(n) for item in items] for n in self.column_names | {"item_id"}}
        is_given = [value is not None for value in columns["item_id"]]
        keys = np.zeros(len(items), dtype=np.int64)
        keys[is_given] = id_keys([str(v) for v in columns["item_id"] if v is not None])
        return self.encode_columns(keys, columns)

    def save(self, folder: Path) -> None:
        """Write ``features.json`` and ``known_ids.npy``; text encoders are copied by the bundle."""
        body = {
            "features": [asdict(feature) for feature in self.features],
            "hash_version": HASH_VERSION,
            "integer_columns": sorted(self.integer_columns),
            "text_encoders": {n: f"{TEXT_ENCODERS}/{n}" for n in self.text_encoders},
        }
        (folder / FEATURES_FILE).write_text(json.dumps(body, indent=1, sort_keys=True))
        np.save(folder / KNOWN_IDS_FILE, self.known_ids, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> FeatureEncoder:
        """The encoder that ``save`` wrote, with text encoders from their folders inside."""
        body = json.loads((folder / FEATURES_FILE).read_text())
        encoders = {
            name: TextEncoder(folder / place, threads=threads)
            for name, place in body["text_encoders"].items()
        }
        return cls(
            tuple(feature_from_json(entry) for entry in body["features"]),
            np.load(folder / KNOWN_IDS_FILE, allow_pickle=False),
            frozenset(body["integer_columns"]),
            encoders,
        )

    def _bags(self, feature: FeatureSpec, columns: list[list[Any]], keys: Int64Array) -> Jagged:
        if feature.columns == ("item_id",):
            lengths = np.array([value is not None for value in columns[0]], dtype=np.int64)
            bags = Jagged(keys[lengths == 1], np.concatenate([[0], np.cumsum(lengths)]))
        else:
            as_integers = feature.columns[0] in self.integer_columns
            bags = bags_of(feature, columns, as_integers=as_integers)
        bags, cut = cut_bags(bags, feature.max_length)
        if cut:
            log.info(
                "cut_bags feature=%s max_length=%d cut=%d", feature.name, feature.max_length, cut
            )
        return keep_known(bags, self.known_ids) if feature.modality == "id" else bags

    def _dense(self, feature: FeatureSpec, columns: list[list[Any]]) -> Dense:
        if feature.kind == "vector":
            return vectors_of(feature, columns[0])
        if feature.kind == "image":
            return pictures_of(feature, columns[0])
        return self._texts(feature, columns)

    def _texts(self, feature: FeatureSpec, columns: list[list[Any]]) -> Dense:
        encoder = self.text_encoders[feature.name]
        texts = [joined_text(row) for row in zip(*columns, strict=True)]
        present = np.array([bool(text) for text in texts], dtype=bool)
        wanted = [text for text in texts if text]
        values = np.zeros((len(texts), encoder.width), dtype=np.float32)
        if self.cache is not None:
            values[present] = encode_cached(encoder, wanted, self.cache)
        else:
            values[present] = encoder.encode(wanted)
        return Dense(values, present)


def feature_from_json(entry: Mapping[str, Any]) -> FeatureSpec:
    """The feature that ``dataclasses.asdict`` and JSON made ``entry`` of."""
    lists = ("columns", "ngrams", "boundaries")
    return FeatureSpec(**{**entry, **{name: tuple(entry[name]) for name in lists}})
