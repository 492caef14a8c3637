"""Names and versions of what lies in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from muxrec.manifest import digest_of
from muxrec.spec.features import FeatureSpec

KIND = "bundle"
FORMAT_VERSION = 1
CURRENT = "CURRENT"
DIGEST_CHARACTERS = 12

RECIPE = "recipe.yaml"
TOWER = "item_tower.onnx"
TOWER_DATA = "item_tower.onnx.data"
VECTORS = "vectors.npy"
PARTS = "parts.npy"
ITEMS = "items.parquet"
NEIGHBOURS = "neighbours.npy"
SCORES = "scores.npy"
INDEX = "index.hnsw"
IMAGES = "images.bin"
IMAGE_OFFSETS = "images.npy"
GOLDEN = "golden.json"
GOLDEN_INPUTS = "golden_inputs.npz"
METRICS = "metrics.json"

ONNX_HASH_VERSION = "muxrec.hash_version"
ONNX_FEATURES_HASH = "muxrec.features_hash"
ONNX_MODALITIES = "muxrec.modalities"


def features_hash(features: Sequence[FeatureSpec]) -> str:
    """Hex SHA-256 of the declarations of ``features``, in order."""
    return digest_of([asdict(feature) for feature in features])
