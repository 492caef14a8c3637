"""Everything that training and export need to know about the items of one snapshot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from muxrec.data.keys import positions_of
from muxrec.encoders.text_source import exported_encoder
from muxrec.features.arrays import ItemArrays
from muxrec.features.encode import FeatureEncoder
from muxrec.features.text_onnx import TextEncoder
from muxrec.recipe.model import Recipe
from muxrec.spec.hashing import Int64Array
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary


class PairsAndItems(Protocol):
    """What is read of a dataset snapshot."""

    def items(self) -> pa.Table:
        """Catalogue rows, sorted by item key."""
        ...

    def pairs(self, split: str) -> pa.Table:
        """Pairs of one split."""
        ...


@dataclass(frozen=True)
class Prepared:
    """Items of a snapshot, encoded.

    Attributes:
        table: Catalogue rows; row number = position of the item everywhere.
        arrays: Encoded features of all items.
        encoder: The encoder that made them; raw items go through it too.
        vocabularies: Feature name -> ids of the catalogue and how often training pairs hold them,
            for every feature that reads a table.
        known_ids: Item keys seen in training pairs, int64, sorted.
        text_encoders: Text feature name -> folder of its exported encoder.
    """

    table: pa.Table
    arrays: ItemArrays
    encoder: FeatureEncoder
    vocabularies: dict[str, Vocabulary]
    known_ids: Int64Array
    text_encoders: dict[str, Path]


def prepare_items(recipe: Recipe, snapshot: PairsAndItems, *, cache: Path) -> Prepared:
    """Encode the catalogue of ``snapshot`` by the features of ``recipe``.

    Args:
        recipe: The run's recipe.
        snapshot: An open dataset snapshot.
        cache: Folder for exported text encoders and encoded texts.

    Raises:
        DataError: A column's values are not of its feature's kind, or a text model is missing.
    """
    table = snapshot.items()
    pairs = snapshot.pairs("train")
    known = np.unique(pairs.column("item_a").to_numpy().astype(np.int64, copy=False))
    folders = {
        feature.name: exported_encoder(feature.encoder or "", cache)
        for feature in recipe.features
        if feature.kind == "text"
    }
    threads = os.cpu_count() or 1
    encoders = {name: TextEncoder(folder, threads=threads) for name, folder in folders.items()}
    encoder = FeatureEncoder(recipe.features, known, _integer_columns(table), encoders, cache=cache)
    arrays = encoder.encode(table)
    counts = _pair_counts(arrays.item_keys, pairs)
    vocabularies = {
        feature.name: _vocabulary(feature.name, arrays, counts)
        for feature in recipe.features
        if feature.is_sparse
    }
    return Prepared(table, arrays, encoder, vocabularies, known, folders)


def _pair_counts(item_keys: Int64Array, pairs: pa.Table) -> Int64Array:
    """How many training pairs hold each item, int64 ``[C]``."""
    ends = [pairs.column(name).to_numpy() for name in ("item_a", "item_b")]
    keys, counts = np.unique(np.concatenate(ends), return_counts=True)
    places = positions_of(item_keys, keys)
    found = np.zeros(len(item_keys), dtype=np.int64)
    found[places >= 0] = counts[places[places >= 0]]
    return found


def _vocabulary(name: str, arrays: ItemArrays, counts: Int64Array) -> Vocabulary:
    bags = arrays.sparse[name]
    return build_vocabulary(name, bags.ids, counts=np.repeat(counts, np.diff(bags.offsets)))


def _integer_columns(table: pa.Table) -> frozenset[str]:
    return frozenset(
        field.name
        for field in table.schema
        if types.is_integer(field.type)
        or (types.is_list(field.type) and types.is_integer(field.type.value_type))
    )
