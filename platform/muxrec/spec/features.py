"""What a feature and a table are: the declarations that every engine lowers.

Two families of features. *Sparse* features are jagged ids (a single value is a bag of one) and read
a table. *Dense* features are one fixed-width array per item with a presence flag. Every feature
belongs to a modality; an item without any value in a modality lacks that modality, explicitly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muxrec.spec.budget import parse_budget
from muxrec.spec.table_methods import METHOD_SPECS, MethodSpec, option_faults

FeatureKind = Literal["id", "bag", "tokens", "number", "vector", "text", "image"]
Modality = Literal["id", "text", "image", "attributes"]
TableMethod = Literal[
    "full",
    "hashed",
    "unified",
    "narrow",
    "mde",
    "qr",
    "tt",
    "dhe",
    "robe",
    "hash_embedding",
    "memcom",
    "adapt",
    "dedup",
    "dpq",
    "mgqe",
    "cce",
    "int8",
    "int16",
    "alpt",
    "autodim",
    "optembed",
    "deeplight",
    "autosrh",
    "pep",
    "cafe",
]
ServeFormat = Literal["fp32", "fp16", "int8", "int4", "int2", "csr"]
SCALED_FORMATS: tuple[ServeFormat, ...] = ("int8", "int4", "int2")
TableOptimizerName = Literal["adagrad", "rmsprop"]
Sharding = Literal[
    "auto", "row_wise", "table_wise", "column_wise", "data_parallel", "table_row_wise", "grid"
]

SPARSE_KINDS: tuple[FeatureKind, ...] = ("id", "bag", "tokens", "number")
DENSE_KINDS: tuple[FeatureKind, ...] = ("vector", "text", "image")
MODALITIES: tuple[Modality, ...] = ("id", "text", "image", "attributes")


@dataclass(frozen=True)
class FeatureSpec:
    """One declared input of the item tower.

    Attributes:
        name: Unique name; it salts the hash, so renaming a feature re-hashes it.
        kind: ``id`` one value; ``bag`` a list or ``|``-separated string; ``tokens`` hashed words of
            text columns; ``number`` a number binned by ``boundaries``; ``vector`` a precomputed
            list<float> column; ``text`` a transformers model over text columns; ``image`` a picture
            file named by a column.
        columns: Catalogue columns, in order; text columns are joined with a space.
        modality: The modality that the feature belongs to. ``id`` features are masked for items
            absent from the training pairs.
        table: Name of the table that a sparse feature reads; None for dense features.
        probes: Rows read per id; the feature's vector has ``probes * table.width`` numbers.
        pooling: How the rows of one bag are combined: ``sum``, ``mean``, or ``sqrt`` (sum over the
            square root of the count).
        max_length: Ids kept per bag, the first ones; how many were cut is counted and logged.
        ngrams: Character n-gram sizes added to the words of a ``tokens`` feature, e.g. ``(3, 4)``.
        boundaries: Bin edges of a ``number``, rising; value v falls in bin ``count(edges <= v)``.
        width: Width of a ``vector`` column.
        encoder: For ``text`` a local folder with a transformers model, or ``package:NAME`` for a
            model inside an installed Python package. For ``image``: ``descriptor`` (fixed colour,
            histogram and gradient statistics) or ``conv`` (pixels into a small trained network).
        image_size: Side of the square that pictures are resized to, in pixels.
    """

    name: str
    kind: FeatureKind
    columns: tuple[str, ...]
    modality: Modality
    table: str | None = None
    probes: int = 1
    pooling: Literal["sum", "mean", "sqrt"] = "mean"
    max_length: int = 32
    ngrams: tuple[int, ...] = ()
    boundaries: tuple[float, ...] = ()
    width: int | None = None
    encoder: str | None = None
    image_size: int = 32

    @property
    def is_sparse(self) -> bool:
        """Whether the feature is jagged ids that read a table."""
        return self.kind in SPARSE_KINDS


@dataclass(frozen=True)
class TableSpec:
    """One declared embedding table.

    Attributes:
        name: Unique name.
        method: A method of ``muxrec methods``.
        width: Numbers per row of a hashed or unified table; with every other method, numbers of the
            feature's vector.
        rows: Physical rows, for methods that have them as their size; None where a budget decides
            or the vocabulary found in the training data does.
        budget: Bytes that the served table may take, e.g. ``2MB``, or its share of the readers'
            full tables, e.g. ``10%``; sets the method's size. The dictionary of known ids is not
            part of it.
        options: The method's options, by name.
        optimizer: ``adagrad`` is row-wise Adagrad, which the fused kernels run; ``rmsprop`` forgets
            old gradients, which small shared tables learn better with (docs/embeddings.md), and
            runs in plain torch.
        init: Rows start uniform in ``[-init, init]``.
        sharding: How the rows are cut over processes; None for the method's own choice.
        serve_dtype: What rows become in the exported graph: ``fp32``, ``fp16``, ``int8``, ``int4``
            or ``int2`` codes with scales.
        serve_group: Numbers that share a scale; 0 for one scale per row. A multiple of the width
            lets rows share one, which narrow rows need to gain anything.
    """

    name: str
    method: TableMethod
    width: int
    rows: int | None = None
    budget: str | None = None
    options: dict[str, float] = field(default_factory=dict[str, float])
    optimizer: TableOptimizerName = "adagrad"
    init: float = 0.05
    sharding: Sharding | None = None
    serve_dtype: ServeFormat = "fp32"
    serve_group: int = 0

    def option(self, name: str) -> float:
        """The option ``name``, or the method's default."""
        return self.options.get(name, METHOD_SPECS[self.method].options[name].default)


def check_features(features: tuple[FeatureSpec, ...], tables: tuple[TableSpec, ...]) -> list[str]:
    """Every fault of a feature and table declaration, as ``path: what`` lines; empty when sound."""
    faults = _duplicates("features", [f.name for f in features])
    faults += _duplicates("tables", [t.name for t in tables])
    by_name = {table.name: table for table in tables}
    for at, table in enumerate(tables):
        faults += [f"tables.{at}.{fault}" for fault in _table_faults(table)]
    for at, feature in enumerate(features):
        found = _sparse_faults(feature, by_name) if feature.is_sparse else _dense_faults(feature)
        faults += [f"features.{at}.{fault}" for fault in found]
    for table in tables:
        if all(feature.table != table.name for feature in features):
            faults.append(f"tables: {table.name} is read by no feature: remove it or use it")
    return faults


def _duplicates(path: str, names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{path}: the name {name} is used more than once" for name in twice]


def _table_faults(table: TableSpec) -> list[str]:
    faults: list[str] = []
    method = METHOD_SPECS[table.method]
    if table.width < 1:
        faults.append(f"width must be positive, got {table.width}")
    if table.serve_group < 0:
        faults.append(f"serve_group must not be negative, got {table.serve_group}")
    if table.serve_group > 0 and table.serve_dtype not in SCALED_FORMATS:
        faults.append(
            f"serve_group: {table.serve_dtype} rows have no scales to share: leave it out or set "
            f"serve_dtype to one of {', '.join(SCALED_FORMATS)}"
        )
    if table.serve_dtype == "csr":
        faults.append("serve_dtype: csr is chosen by the methods that prune; leave it out")
    faults += option_faults(table.method, table.options)
    return [*faults, *_size_faults(table, method)]


def _size_faults(table: TableSpec, method: MethodSpec) -> list[str]:
    """The size is given once: by rows, by the option that is the method's size, or by a budget."""
    if table.budget is not None:
        try:
            parse_budget(table.budget)
        except ValueError as error:
            return [f"budget: {error}"]
        given = ["rows"] if table.rows is not None else []
        given += [f"options.{name}" for name in table.options if name == method.free]
        return [f"budget: it sets {given[0]}: leave one of them out"] if given else []
    if method.takes_rows and (table.rows is None or not 1 <= table.rows < 2**31):
        return [f"rows must be in [1, 2**31) for a {table.method} table, got {table.rows}"]
    if not method.takes_rows and table.rows is not None:
        return [f"rows is decided by the vocabulary of a {table.method} table: leave it out"]
    return []


def _sparse_faults(feature: FeatureSpec, tables: dict[str, TableSpec]) -> list[str]:
    faults: list[str] = []
    table = tables.get(feature.table or "")
    if table is None:
        known = ", ".join(sorted(tables)) or "none declared"
        faults.append(f"table: {feature.table} is not a declared table (known: {known})")
    if feature.probes < 1:
        faults.append(f"probes must be positive, got {feature.probes}")
    if table is not None and feature.probes != 1 and not METHOD_SPECS[table.method].has_probes:
        faults.append(f"probes: a {table.method} table has no probes: leave probes at 1")
    if feature.max_length < 1:
        faults.append(f"max_length must be positive, got {feature.max_length}")
    if feature.kind == "number" and list(feature.boundaries) != sorted(set(feature.boundaries)):
        faults.append("boundaries must rise strictly")
    return faults


def _dense_faults(feature: FeatureSpec) -> list[str]:
    faults: list[str] = []
    if feature.table is not None:
        faults.append(f"table: a {feature.kind} feature reads no table: remove table")
    if feature.kind == "vector" and (feature.width is None or feature.width < 1):
        faults.append(f"width must be the positive width of the vector, got {feature.width}")
    if feature.kind == "text" and not feature.encoder:
        faults.append("encoder must name a local model folder or package:NAME")
    if feature.kind == "image" and feature.encoder not in ("descriptor", "conv"):
        faults.append(f"encoder must be descriptor or conv, got {feature.encoder}")
    return faults
