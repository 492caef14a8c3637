"""Golden answers: questions that were answered when the bundle was made and at every load again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muxrec.bundle import format as names
from muxrec.bundle.reader import Bundle
from muxrec.bundle.tower import TowerSession
from muxrec.errors import BundleError
from muxrec.features.arrays import ItemArrays
from muxrec.index import NeighbourIndex, best_of

Float32Array = npt.NDArray[np.float32]
K = 10
SCORE_TOLERANCE = 1e-5
"""Another processor sums the products in another order; float32 keeps about seven digits."""
TOWER_TOLERANCE = 1e-4
"""The limit that the export itself keeps between two engines."""
RECALL_SLACK = 0.02
"""Near ties may fall otherwise on another processor; real damage costs far more."""
TOWER_ITEMS = 32


@dataclass(frozen=True)
class GoldenReport:
    """What a check of golden answers found.

    Attributes:
        queries: Neighbour queries asked.
        recall: Share of their exact neighbours that the index found.
        score_error: Largest difference of an exact score.
        tower_error: Largest difference of a tower output.
    """

    queries: int
    recall: float
    score_error: float
    tower_error: float


def golden_positions(count: int, queries: int) -> npt.NDArray[np.int64]:
    """``queries`` positions spread over a catalogue of ``count`` items, int64, rising."""
    return np.unique(np.linspace(0, count - 1, min(queries, count)).astype(np.int64))


def write_golden(
    folder: Path,
    *,
    vectors: Float32Array,
    index: NeighbourIndex,
    item_ids: npt.NDArray,
    queries: int,
) -> float:
    """Write ``golden.json`` and return the index's recall on its queries.

    Args:
        folder: The bundle being made.
        vectors: float32 ``[C, D]``.
        index: The index over them.
        item_ids: Item id of each position, ``[C]``.
        queries: How many items to ask for.
    """
    positions = golden_positions(len(vectors), queries)
    k = min(K, len(vectors))
    exact, scores = best_of(vectors[positions] @ vectors.T, k)
    recall = _overlap(index.search(np.ascontiguousarray(vectors[positions]), k)[0], exact)
    golden = {
        "k": k,
        "queries": positions.tolist(),
        "items": item_ids[exact].tolist(),
        "positions": exact.tolist(),
        "scores": scores.astype(float).tolist(),
        "min_recall": max(0.0, recall - RECALL_SLACK),
    }
    (folder / names.GOLDEN).write_text(json.dumps(golden))
    return recall


def write_golden_inputs(folder: Path, *, arrays: ItemArrays, tower: TowerSession) -> None:
    """Write encoded items with the tower's answers.

    Args:
        folder: The bundle being made.
        arrays: Encoded catalogue.
        tower: The exported tower.
    """
    chosen = arrays.take(golden_positions(len(arrays), TOWER_ITEMS))
    vectors, parts = tower.encode(chosen)
    inputs = {f"input.{k}": v for k, v in chosen.onnx_inputs(tower.features).items()}
    saved = {**inputs, "expected.vector": vectors, "expected.parts": parts}
    _write_npz(folder / names.GOLDEN_INPUTS, saved)


def check_golden(bundle: Bundle) -> GoldenReport:
    """Ask every golden question again.

    Raises:
        BundleError: An answer differs by more than its tolerance, or recall is below its limit.
    """
    try:
        golden = json.loads((bundle.folder / names.GOLDEN).read_text())
        expected = np.array(golden["positions"])
        expected_scores = np.array(golden["scores"], dtype=np.float32)
        queries, k = np.array(golden["queries"]), int(golden["k"])
        same_items = bundle.item_ids[expected].tolist() == golden["items"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BundleError(f"{bundle.folder}: {names.GOLDEN} cannot be used: {error}") from error
    asked = np.ascontiguousarray(bundle.vectors[queries])
    matrix = asked @ bundle.vectors.T
    ranked = best_of(matrix, k)[1]
    score_error = max(
        float(np.abs(ranked - expected_scores).max()),
        float(np.abs(np.take_along_axis(matrix, expected, axis=1) - expected_scores).max()),
    )
    recall = _overlap(bundle.index().search(asked, k)[0], expected)
    tower_error = _tower_error(bundle)
    _demand(same_items, bundle, "item ids are not those of the golden answers")
    _demand(score_error <= SCORE_TOLERANCE, bundle, f"golden scores differ by {score_error:.1e}")
    _demand(tower_error <= TOWER_TOLERANCE, bundle, f"golden vectors differ by {tower_error:.1e}")
    limit = golden["min_recall"]
    _demand(recall >= limit, bundle, f"index recall is {recall:.3f}, expected {limit:.3f}")
    return GoldenReport(len(queries), recall, score_error, tower_error)


def _tower_error(bundle: Bundle) -> float:
    path = bundle.folder / names.GOLDEN_INPUTS
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    inputs = {k.removeprefix("input."): v for k, v in arrays.items() if k.startswith("input.")}
    vectors, parts = bundle.tower().run(inputs)
    return max(
        float(np.abs(vectors - arrays["expected.vector"]).max()),
        float(np.abs(parts - arrays["expected.parts"]).max()),
    )


def _demand(holds: bool, bundle: Bundle, what: str) -> None:
    if not holds:
        raise BundleError(f"{bundle.folder}: {what}: refused")


def _overlap(found: npt.NDArray[np.int64], expected: npt.NDArray[np.int64]) -> float:
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in pairs]))


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """``numpy.savez`` without the time of day, so that the same bundle has the same digest."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
