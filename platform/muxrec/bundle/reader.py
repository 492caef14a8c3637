"""Opening a bundle: hashes first, then typed parts on demand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.bundle import format as names
from muxrec.bundle.tower import Provider, TowerSession
from muxrec.errors import BundleError
from muxrec.features.encode import FEATURES_FILE, FeatureEncoder, feature_from_json
from muxrec.index import NeighbourIndex
from muxrec.manifest import manifest_digest, read_manifest
from muxrec.manifest import verify as verify_folder
from muxrec.spec.features import FeatureSpec

BODY = {
    "dim": int,
    "count": int,
    "neighbours": int,
    "modalities": list,
    "space": str,
    "index": dict,
}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Properties are read once and kept; arrays are memory-mapped, so opening is cheap and processes
    share pages. ``index``, ``tower`` and ``encoder`` make a fresh object at every call.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
        digest: Hex SHA-256 of the manifest: the identity of the bundle.
    """

    folder: Path
    manifest: dict[str, Any]
    digest: str

    @classmethod
    def open(cls, folder: Path, verify: bool = True, *, digest: str | None = None) -> Bundle:
        """The bundle in ``folder``, or the current one where ``folder`` holds many.

        Args:
            folder: A bundle, or a folder of bundles with a ``CURRENT`` pointer.
            verify: Compare every file's SHA-256; leave out only where another process just did.
            digest: The digest that it must have; None takes any.

        Raises:
            BundleError: A file is missing, truncated, edited, linked or not listed (it is named),
                or the bundle is not the expected one.
            HashMismatchError: It was made with another hash spec.
        """
        folder = resolve_current(Path(folder))
        kind, version = names.KIND, names.FORMAT_VERSION
        manifest = read_manifest(folder, kind=kind, format_version=version)
        found = manifest_digest(folder)
        _check_identity(folder, found, digest)
        _check_body(folder, manifest)
        if verify:
            verify_folder(folder, kind=kind, format_version=version)
        return cls(folder, manifest, found)

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self.manifest["dim"]

    @property
    def count(self) -> int:
        """Items C in the bundle."""
        return self.manifest["count"]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Name of each of the M parts of a vector."""
        return tuple(self.manifest["modalities"])

    @cached_property
    def items(self) -> pa.Table:
        """One row per item, in order of position: ids, display and filter columns."""
        path = self.folder / names.ITEMS
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        if table.num_rows != self.count or not {"item_id", "item_key"} <= {*table.column_names}:
            raise BundleError(
                f"{path} has {table.num_rows} rows and columns {table.column_names}, expected "
                f"{self.count} rows with item_id and item_key"
            )
        return table

    @cached_property
    def item_ids(self) -> npt.NDArray[np.object_]:
        """Item id of each position, str objects ``[C]``."""
        return self.items.column("item_id").to_numpy(zero_copy_only=False)

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Unit vectors, float32 ``[C, D]``."""
        return self._array(names.VECTORS, np.float32, (self.count, self.dim))

    @cached_property
    def parts(self) -> npt.NDArray[np.float16]:
        """Share of each modality in each vector, float16 ``[C, M, D]``; they sum to the vector."""
        shape = (self.count, len(self.modalities), self.dim)
        return self._array(names.PARTS, np.float16, shape)

    @cached_property
    def neighbours(self) -> npt.NDArray[np.int32]:
        """Positions of each item's nearest others, int32 ``[C, N]``, best first, exact."""
        return self._array(names.NEIGHBOURS, np.int32, (self.count, self.manifest["neighbours"]))

    @cached_property
    def scores(self) -> npt.NDArray[np.float32]:
        """Inner products of ``neighbours``, float32 ``[C, N]``."""
        return self._array(names.SCORES, np.float32, (self.count, self.manifest["neighbours"]))

    def image(self, position: int) -> bytes | None:
        """The picture file of an item, or None where it has none."""
        if self._images is None:
            return None
        start, end = self._images[0][position], self._images[0][position + 1]
        return self._images[1][start:end].tobytes() or None

    def index(self, *, ef: int | None = None) -> NeighbourIndex:
        """The approximate index over ``vectors``, searched with ``ef`` or as the recipe says."""
        return NeighbourIndex.load(
            self.folder / names.INDEX,
            dim=self.dim,
            count=self.count,
            ef=ef or int(self.manifest["index"]["ef_search"]),
        )

    def tower(self, *, provider: Provider = "cpu") -> TowerSession:
        """The item tower in onnxruntime."""
        path = self.folder / names.TOWER
        return TowerSession(path, features=self.features, provider=provider)

    def encoder(self, *, threads: int = 1) -> FeatureEncoder:
        """The encoder of raw items, text models included."""
        return FeatureEncoder.load(self.folder, threads=threads)

    @cached_property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Inputs of the tower, in order."""
        entries = json.loads((self.folder / FEATURES_FILE).read_text())["features"]
        return tuple(feature_from_json(entry) for entry in entries)

    @cached_property
    def _images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]] | None:
        path = self.folder / names.IMAGES
        if not path.is_file():
            return None
        offsets = self._array(names.IMAGE_OFFSETS, np.int64, (self.count + 1,))
        size = path.stat().st_size
        if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
            raise BundleError(f"{self.folder}: {names.IMAGE_OFFSETS} does not fit {names.IMAGES}")
        if size == 0:
            return offsets, np.empty(0, dtype=np.uint8)
        return offsets, np.memmap(path, dtype=np.uint8, mode="r")

    def _array(self, name: str, dtype: type, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        path = self.folder / name
        try:
            # An empty array cannot be mapped.
            mode = "r" if np.prod(shape) else None
            array = np.load(path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        if array.dtype != dtype or array.shape != shape:
            expected = f"{np.dtype(dtype)} {list(shape)}"
            raise BundleError(f"{path} is {array.dtype} {list(array.shape)}, expected {expected}")
        return array


def resolve_current(folder: Path) -> Path:
    """``folder`` itself, or the bundle that its ``CURRENT`` file names.

    Raises:
        BundleError: The pointer names no folder beside it.
    """
    pointer = folder / names.CURRENT
    if not pointer.is_file():
        return folder
    name = pointer.read_text(encoding="utf-8").strip()
    if not re.fullmatch(rf"[0-9a-f]{{{names.DIGEST_CHARACTERS}}}", name):
        raise BundleError(f"{pointer} must hold the name of a bundle, got {name[:80]!r}")
    if not (folder / name).is_dir():
        raise BundleError(f"{pointer} names {name}, which is not there: export again")
    return folder / name


def _check_identity(folder: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise BundleError(f"{folder} has digest {found}, expected {expected}: refused")
    name = folder.resolve().name
    is_digest = re.fullmatch(rf"[0-9a-f]{{{names.DIGEST_CHARACTERS}}}", name)
    if is_digest and not found.startswith(name):
        raise BundleError(
            f"{folder}: manifest.json was changed after it was published: its digest begins with "
            f"{found[: names.DIGEST_CHARACTERS]}, the folder is called {name}"
        )


def _check_body(folder: Path, manifest: dict[str, Any]) -> None:
    wrong = [key for key, kind in BODY.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        raise BundleError(f"{folder}: manifest.json lacks a sound {', '.join(wrong)}: export again")
    if manifest["dim"] < 1 or manifest["count"] < 1:
        raise BundleError(f"{folder}: manifest.json says dim or count below 1: export again")
