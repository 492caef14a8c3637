"""A tiny real bundle of random vectors, to try the server and its doctor with. No torch needed.

Its tower is a real graph: two precomputed vectors per item, one for the text and one for the
picture, are added and divided by the norm of the sum.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper

from muxrec.bundle import format as names
from muxrec.bundle.tower import TowerSession
from muxrec.bundle.write import BundleParts, write_bundle
from muxrec.features.encode import FeatureEncoder
from muxrec.recipe.model import Data, Export, Index, Recipe, Source, TableFile
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import HASH_VERSION, string_ids

GENRES = ("comedy", "drama", "western")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def sample_features(dim: int) -> tuple[FeatureSpec, ...]:
    """The two features of a sample bundle, vectors of width ``dim``."""
    return (
        FeatureSpec("plot", "vector", ("plot",), "text", width=dim),
        FeatureSpec("poster", "vector", ("poster",), "image", width=dim),
    )


def sample_bundle(
    root: Path,
    *,
    count: int = 200,
    dim: int = 16,
    neighbours: int = 20,
    images: bool = True,
    recall: float = 0.5,
    seed: int = 0,
) -> Path:
    """Publish a bundle of ``count`` random items under ``root`` and return its folder.

    Items are called ``item-0`` and so on, have a title, a genre, a year, and every second one a
    picture; every fifth lacks its plot vector and every tenth is cold.

    Args:
        root: Folder of bundles.
        count: Items, at least 1.
        dim: Width of the vectors.
        neighbours: Neighbours precomputed per item.
        images: Whether every second item has a picture, or none at all.
        recall: What its metrics say as ``recall_at_10``.
        seed: Seed of everything random.
    """
    features = sample_features(dim)
    table = _catalogue(count, dim, seed)
    is_warm = ~table["is_cold"].to_numpy(zero_copy_only=False)
    encoder = FeatureEncoder(features, table["item_key"].to_numpy()[is_warm])
    arrays = encoder.encode(table)
    with tempfile.TemporaryDirectory() as scratch:
        tower = Path(scratch) / names.TOWER
        onnx.save(sample_tower(features), tower)
        vectors, parts = TowerSession(tower, features=features).encode(arrays)
        return write_bundle(
            root,
            BundleParts(
                recipe=_recipe(features, neighbours),
                encoder=encoder,
                tower=tower,
                items=table.drop_columns(["plot", "poster"]),
                arrays=arrays,
                vectors=vectors,
                parts=parts,
                images=[PIXEL, None] * (count // 2) + [PIXEL] * (count % 2) if images else None,
                data_digest="0" * 64,
                metrics={"recall_at_10": recall},
            ),
        )


def sample_tower(features: tuple[FeatureSpec, ...]) -> onnx.ModelProto:
    """The graph: ``part = values * present / |sum|`` for each feature, ``vector`` their sum."""
    width = features[0].width
    steps = [step for feature in features for step in _part_steps(feature)]
    steps += [
        helper.make_node("Concat", [f"{f.name}.row" for f in features], ["stacked"], axis=1),
        helper.make_node("ReduceSum", ["stacked", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "sum"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "two"], ["squared_norm"], keepdims=1),
        helper.make_node("Sqrt", ["squared_norm"], ["norm"]),
        helper.make_node("Max", ["norm", "floor"], ["divisor"]),
        helper.make_node("Div", ["stacked", "divisor"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "one"], ["vector"], keepdims=0),
    ]
    inputs = [entry for feature in features for entry in _inputs(feature)]
    outputs = [
        helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", width]),
        helper.make_tensor_value_info("parts", TensorProto.FLOAT, ["batch", len(features), width]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("floor", TensorProto.FLOAT, [], [1e-12]),
    ]
    graph = helper.make_graph(steps, "sample_tower", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, _metadata(features))
    return model


def _part_steps(feature: FeatureSpec) -> list[onnx.NodeProto]:
    name = feature.name
    return [
        helper.make_node("Unsqueeze", [f"{name}.present", "one"], [f"{name}.column"]),
        helper.make_node("Mul", [f"{name}.values", f"{name}.column"], [f"{name}.part"]),
        helper.make_node("Unsqueeze", [f"{name}.part", "one"], [f"{name}.row"]),
    ]


def _inputs(feature: FeatureSpec) -> list[onnx.ValueInfoProto]:
    shapes = {"values": ["batch", feature.width], "present": ["batch"]}
    return [
        helper.make_tensor_value_info(f"{feature.name}.{end}", TensorProto.FLOAT, shape)
        for end, shape in shapes.items()
    ]


def _metadata(features: tuple[FeatureSpec, ...]) -> dict[str, str]:
    return {
        names.ONNX_HASH_VERSION: HASH_VERSION,
        names.ONNX_FEATURES_HASH: names.features_hash(features),
        names.ONNX_MODALITIES: json.dumps([feature.modality for feature in features]),
    }


def _catalogue(count: int, dim: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = [f"item-{at}" for at in range(count)]
    plots = rng.normal(size=(count, dim)).tolist()
    columns = {
        "item_id": ids,
        "item_key": string_ids(ids),
        "title": [f"Item number {at}" for at in range(count)],
        "genre": [GENRES[at % len(GENRES)] for at in range(count)],
        "year": np.array([1950 + at % 70 for at in range(count)]),
        "train_events": np.array([0 if at % 10 == 0 else 5 for at in range(count)]),
        "is_cold": [at % 10 == 0 for at in range(count)],
        "plot": [None if at % 5 == 0 else plots[at] for at in range(count)],
        "poster": rng.normal(size=(count, dim)).tolist(),
    }
    return pa.table(columns).sort_by("item_key")


def _recipe(features: tuple[FeatureSpec, ...], neighbours: int) -> Recipe:
    export = Export(display=("title",), filters=("genre", "year"))
    data = Data(Source("generic", interactions=TableFile("log.parquet")))
    return Recipe("sample", data, features, index=Index(neighbours=neighbours), export=export)
