"""Making a bundle: every file of it, from vectors to golden answers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.bundle import format as names
from muxrec.bundle.golden import write_golden, write_golden_inputs
from muxrec.bundle.neighbours import exact_neighbours
from muxrec.bundle.staging import publish_folder, staging
from muxrec.bundle.tower import TowerSession
from muxrec.errors import BundleError
from muxrec.features.arrays import ItemArrays
from muxrec.features.encode import TEXT_ENCODERS, FeatureEncoder
from muxrec.index import NeighbourIndex
from muxrec.log import event
from muxrec.manifest import digest_of, sha256_file
from muxrec.recipe.load import dump_recipe, recipe_hash
from muxrec.recipe.model import Recipe, Tracking

Float32Array = npt.NDArray[np.float32]
PACKAGES = ("muxrec", "numpy", "onnxruntime", "hnswlib", "pyarrow")

log = logging.getLogger("muxrec.bundle")


@dataclass(frozen=True)
class BundleParts:
    """What a bundle is made of; neighbours, index and golden answers are computed from it.

    Attributes:
        recipe: The resolved recipe.
        encoder: Encoder of raw items.
        text_encoders: Text feature name -> folder of its exported model.
        tower: The exported graph; a file ``<name>.data`` beside it goes along.
        items: One row per item: ``item_id`` string, ``item_key`` int64 and what the server shows
            or filters by.
        arrays: Encoded catalogue, for the golden questions.
        vectors: Unit vectors as the graph gives them, float32 ``[C, D]``.
        parts: Share of each modality, float32 ``[C, M, D]``.
        images: Picture file of each item or None, ``[C]``; None for no pictures at all.
        data_digest: Content digest of the dataset snapshot.
        metrics: Evaluation of the tower.
        lineage: Git commit, run id, seed.
    """

    recipe: Recipe
    encoder: FeatureEncoder
    tower: Path
    items: pa.Table
    arrays: ItemArrays
    vectors: Float32Array
    parts: Float32Array
    data_digest: str = ""
    text_encoders: Mapping[str, Path] = field(default_factory=dict)
    images: Iterable[bytes | None] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, str | int | None] = field(default_factory=dict)


def write_bundle(root: Path, parts: BundleParts) -> Path:
    """Write, seal, probe and publish a bundle; returns its folder ``root/<digest>``.

    The same parts give the same digest. ``root/CURRENT`` names the new bundle afterwards.

    Raises:
        BundleError: The parts do not fit each other, the disk is full, or the probe refused the
            result; nothing was published then.
    """
    _check_parts(parts)
    with staging(root) as folder:
        tower = _write_tower(folder, parts)
        _write_items(folder, parts)
        write_golden_inputs(folder, arrays=parts.arrays, tower=tower)
        body = _body(folder, parts, tower.modalities)
        body |= write_search(folder, recipe=parts.recipe, items=parts.items, vectors=parts.vectors)
        return publish_folder(root, folder, body)


def write_search(
    folder: Path, *, recipe: Recipe, items: pa.Table, vectors: Float32Array
) -> dict[str, Any]:
    """Write recipe, neighbours, index and golden queries; returns the manifest's part about them.

    Args:
        folder: The bundle being made.
        recipe: Its ``index`` section decides.
        items: Rows with ``item_id``.
        vectors: float32 ``[C, D]``.
    """
    settings = recipe.index
    # Where the run wrote to and which server it logged to (the address may hold a password) decide
    # no result, and without them the same run has the same digest on any machine.
    portable = replace(recipe, output=None, tracking=Tracking())
    (folder / names.RECIPE).write_text(dump_recipe(portable), encoding="utf-8")
    positions, scores = exact_neighbours(vectors, settings.neighbours)
    np.save(folder / names.NEIGHBOURS, positions, allow_pickle=False)
    np.save(folder / names.SCORES, scores, allow_pickle=False)
    index = NeighbourIndex.build(
        vectors, m=settings.m, ef_construction=settings.ef_construction, ef=settings.ef_search
    )
    index.save(folder / names.INDEX)
    recall = write_golden(
        folder,
        vectors=vectors,
        index=index,
        item_ids=items.column("item_id").to_numpy(zero_copy_only=False),
        queries=settings.golden_queries,
    )
    if recall < 0.9:
        log.warning(event("low_index_recall", recall=recall, advice="raise index.m or ef_search"))
    return {
        "recipe_hash": recipe_hash(recipe),
        "neighbours": positions.shape[1],
        "index": {
            "m": settings.m,
            "ef_construction": settings.ef_construction,
            "ef_search": settings.ef_search,
            "recall": recall,
        },
    }


def _check_parts(parts: BundleParts) -> None:
    count, width = parts.vectors.shape
    rows = (parts.items.num_rows, len(parts.arrays), len(parts.parts))
    if count == 0 or rows != (count, count, count) or parts.parts.shape[2] != width:
        raise BundleError(
            f"a bundle needs one row per item everywhere: {count} vectors, {rows[0]} items, "
            f"{rows[1]} encoded items, parts {list(parts.parts.shape)}"
        )
    if not {"item_id", "item_key"} <= {*parts.items.column_names}:
        raise BundleError("the items of a bundle need the columns item_id and item_key")


def _write_tower(folder: Path, parts: BundleParts) -> TowerSession:
    data = parts.tower.with_name(f"{parts.tower.name}.data")
    shutil.copyfile(parts.tower, folder / names.TOWER)
    if data.is_file():
        # The graph names its data file, so the name stays.
        shutil.copyfile(data, folder / data.name)
    parts.encoder.save(folder)
    for name, source in parts.text_encoders.items():
        shutil.copytree(source, folder / TEXT_ENCODERS / name)
    return TowerSession(folder / names.TOWER, features=parts.encoder.features)


def _write_items(folder: Path, parts: BundleParts) -> None:
    vectors = np.ascontiguousarray(parts.vectors, dtype=np.float32)
    np.save(folder / names.VECTORS, vectors, allow_pickle=False)
    np.save(folder / names.PARTS, parts.parts.astype(np.float16), allow_pickle=False)
    # Page checksums are off by default, and without them bit rot reads as other values.
    pq.write_table(parts.items, folder / names.ITEMS, compression="zstd", write_page_checksum=True)
    (folder / names.METRICS).write_text(json.dumps(parts.metrics, indent=1, sort_keys=True))
    if parts.images is not None:
        _write_images(folder, parts.images, count=len(vectors))


def _write_images(folder: Path, images: Iterable[bytes | None], *, count: int) -> None:
    offsets = [0]
    with (folder / names.IMAGES).open("wb") as stream:
        for image in images:
            offsets.append(offsets[-1] + stream.write(image or b""))
    if len(offsets) != count + 1:
        raise BundleError(f"{len(offsets) - 1} pictures came for {count} items")
    np.save(folder / names.IMAGE_OFFSETS, np.array(offsets, dtype=np.int64), allow_pickle=False)


def _body(folder: Path, parts: BundleParts, modalities: tuple[str, ...]) -> dict[str, Any]:
    files = sorted(p for p in folder.iterdir() if p.name.startswith(names.TOWER))
    features = names.features_hash(parts.encoder.features)
    return {
        "dim": parts.vectors.shape[1],
        "count": len(parts.vectors),
        "modalities": list(modalities),
        "features_hash": features,
        # Vectors of two bundles can be compared when the same tower made them.
        "space": digest_of([features, *(sha256_file(path) for path in files)]),
        "data_digest": parts.data_digest,
        "display": [n for n in parts.recipe.export.display if n in parts.items.column_names],
        "filters": [n for n in parts.recipe.export.filters if n in parts.items.column_names],
        "metrics": dict(parts.metrics),
        "lineage": dict(parts.lineage),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
