"""The approximate neighbour index, and the only module that imports hnswlib.

hnswlib 0.8.0 protects neither its files nor its objects: a query of the wrong width reads outside
its buffer, saving on a full disk "succeeds", a damaged header crashes the process, reloading a
live object leaves dangling pointers, ``ef`` is forgotten by a file. Every such call is made
impossible here: inputs are checked, files are measured, an index never changes after it was built.
A file must have passed its manifest's SHA-256 before it is loaded, in a probe process first.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt

from muxrec.errors import BundleError, DataError
from muxrec.manifest import sync_folder

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
SEED = 100
_HEADER = struct.Struct("<6Q")


class NeighbourIndex:
    """Immutable index over unit vectors, ranked by inner product.

    Attributes:
        dim: Width D of the vectors.
        count: Vectors C in the index; positions are 0 .. C - 1.
        ef: Candidate list size of a search.
    """

    def __init__(self, graph: hnswlib.Index, *, dim: int, count: int, ef: int) -> None:
        self._graph = graph
        self.dim, self.count, self.ef = dim, count, ef
        graph.set_num_threads(1)
        graph.set_ef(ef)

    @classmethod
    def build(
        cls, vectors: Float32Array, *, m: int, ef_construction: int, ef: int = 64, seed: int = SEED
    ) -> NeighbourIndex:
        """An index over ``vectors``, the same for the same input.

        Args:
            vectors: Unit vectors, float32 ``[C, D]``, contiguous, C and D at least 1.
            m: Links per node.
            ef_construction: Candidate list size while building.
            ef: Candidate list size of searches.
            seed: Seed of the graph's random levels.

        Raises:
            DataError: The vectors are empty, not float32, not contiguous or not finite.
        """
        _check_vectors(vectors, "vectors to index")
        count, dim = vectors.shape
        if count == 0 or m < 2 or ef_construction < 1 or ef < 1:
            raise DataError(
                "an index needs at least one vector, m >= 2, ef_construction >= 1 and ef >= 1; got "
                f"{count} vectors, m={m}, ef_construction={ef_construction}, ef={ef}"
            )
        graph = hnswlib.Index(space="ip", dim=dim)
        graph.init_index(count, M=m, ef_construction=ef_construction, random_seed=seed)
        # One thread: with several the graph depends on their timing.
        graph.add_items(vectors, np.arange(count), num_threads=1)
        return cls(graph, dim=dim, count=count, ef=ef)

    @classmethod
    def load(cls, path: Path, *, dim: int, count: int, ef: int) -> NeighbourIndex:
        """The index that ``save`` wrote to ``path``, whose SHA-256 the caller has compared.

        Args:
            path: Index file.
            dim: Width of its vectors; the file does not say.
            count: Vectors that it must hold.
            ef: Candidate list size of searches; the file does not keep it.

        Raises:
            BundleError: The file is missing, cut, or holds vectors of another number or width.
        """
        if not path.is_file():
            raise BundleError(f"{path} is missing: no index to load")
        if dim < 1 or count < 1 or ef < 1:
            message = f"dim, count and ef must be positive, got {dim}, {count}, {ef}"
            raise BundleError(f"{path}: {message}")
        _check_header(path, dim=dim, count=count)
        graph = hnswlib.Index(space="ip", dim=dim)
        try:
            graph.load_index(str(path), max_elements=0)
        except (RuntimeError, MemoryError) as error:
            raise BundleError(f"{path} is not a whole hnswlib index: {error}") from error
        return cls(graph, dim=dim, count=count, ef=ef)

    def save(self, path: Path) -> None:
        """Write the index to ``path`` in one rename; ``path`` is whole or as it was.

        Raises:
            BundleError: The folder is missing, or the disk was full: hnswlib itself does not say.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self._graph.save_index(str(temporary))
            size = temporary.stat().st_size if temporary.is_file() else 0
            expected = self._graph.index_file_size()
            if size != expected:
                raise BundleError(f"{path}: {size} of {expected} bytes written: is the disk full?")
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{path} could not be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def search(self, vectors: Float32Array, k: int) -> tuple[Int64Array, Float32Array]:
        """The ``k`` nearest positions of each query, best first, approximately.

        Args:
            vectors: Queries, float32 ``[B, D]``, contiguous, finite.
            k: Results per query, in ``[1, count]``.

        Returns:
            ``(positions, scores)``: int64 ``[B, k]`` and inner products float32 ``[B, k]``; B = 0
            gives empty arrays.

        Raises:
            DataError: Shape, type, width or ``k`` is wrong, or a query is not finite.
        """
        self._check_query(vectors, k)
        if len(vectors) == 0:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        if k > self.ef:
            self._graph.set_ef(k)
        try:
            labels, distances = self._graph.knn_query(vectors, k=k, num_threads=1)
        except RuntimeError as error:
            # A damaged or poorly linked graph finds fewer than k; hnswlib leaks on each such call.
            raise BundleError(f"the index found fewer than {k} neighbours: {error}") from error
        finally:
            self._graph.set_ef(self.ef)
        return labels.astype(np.int64), (1.0 - distances).astype(np.float32)

    def _check_query(self, vectors: Float32Array, k: int) -> None:
        _check_vectors(vectors, "query vectors")
        if vectors.shape[1] != self.dim:
            message = f"query vectors have width {vectors.shape[1]}, the index {self.dim}"
            raise DataError(message)
        if not 1 <= k <= self.count:
            raise DataError(f"k must be in [1, {self.count}], got {k}")


def exact_search(
    queries: Float32Array, vectors: Float32Array, k: int
) -> tuple[Int64Array, Float32Array]:
    """The ``k`` nearest rows of ``vectors`` for each query, by scoring all ``B * C`` pairs.

    Args:
        queries: float32 ``[B, D]``, contiguous, finite.
        vectors: float32 ``[C, D]``, contiguous, finite.
        k: Results per query, in ``[1, C]``.

    Returns:
        ``(positions, scores)``: int64 and float32 ``[B, k]``, best first, ties by position.

    Raises:
        DataError: As ``NeighbourIndex.search``.
    """
    _check_vectors(queries, "query vectors")
    _check_vectors(vectors, "vectors")
    if queries.shape[1] != vectors.shape[1]:
        raise DataError(f"query width {queries.shape[1]} is not vector width {vectors.shape[1]}")
    if not 1 <= k <= len(vectors):
        raise DataError(f"k must be in [1, {len(vectors)}], got {k}")
    return best_of(queries @ vectors.T, k)


def best_of(scores: Float32Array, k: int) -> tuple[Int64Array, Float32Array]:
    """Columns of the ``k`` largest ``scores`` per row, best first, ties by column.

    Args:
        scores: float32 ``[B, C]``.
        k: Results per row, at most C.
    """
    kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    smallest = np.take_along_axis(scores, kept, axis=1).min(axis=1, keepdims=True)
    # The partition takes any of several equal scores at its border; such rows are sorted whole.
    for row in np.flatnonzero((scores >= smallest).sum(axis=1) > k):
        kept[row] = np.argsort(-scores[row], kind="stable")[:k]
    kept.sort(axis=1)
    values = np.take_along_axis(scores, kept, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    positions = np.take_along_axis(kept, order, axis=1).astype(np.int64)
    return positions, np.take_along_axis(values, order, axis=1)


def _check_vectors(vectors: Float32Array, what: str) -> None:
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        found = getattr(vectors, "dtype", type(vectors).__name__)
        raise DataError(f"{what} must be a float32 array, got {found}")
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise DataError(f"{what} must have shape [rows, width], got {list(vectors.shape)}")
    if not vectors.flags.c_contiguous:
        raise DataError(f"{what} must be contiguous: use numpy.ascontiguousarray")
    if not np.isfinite(vectors).all():
        raise DataError(f"{what} must be finite: NaN or infinity found")


def _check_header(path: Path, *, dim: int, count: int) -> None:
    """Compare the file's own sizes with what is expected, which hnswlib does not do.

    The header begins with level-0 offset, room, count, bytes per element, label offset and data
    offset; a vector's bytes lie between the last two.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise BundleError(f"{path} is not a whole hnswlib index: {len(head)} bytes")
    start, room, found, per_element, label_at, data_at = _HEADER.unpack(head)
    if (found, room) != (count, count):
        raise BundleError(f"{path} holds {found} of {room} vectors, expected {count}")
    if start != 0 or label_at - data_at != 4 * dim or per_element != label_at + 8:
        raise BundleError(f"{path} was not built for float32 vectors of width {dim}")
