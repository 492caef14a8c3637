"""What a table method is: the physical tables, the rows read, and how they become one vector.

Everything that costs work to build (sharding, fused optimisers, checkpoints, quantisation, export,
the kernels) knows physical tables, reads and combines only, so a new method has all of it. A method
may train in several stages, each with a lowering of its own, and may be served in another form than
it was trained in; what passes from one to the next are plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.methods.addresses import Address

FP32_BYTES = 4
Evaluate = Callable[[], float]
"""Quality of the tables as they are now on data that is not trained on; higher is better."""
Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class PhysicalTable:
    """A plain array of rows.

    Attributes:
        name: Unique name, the key of its state in checkpoints and the salt of its first rows.
        rows: R, at least 1.
        width: Numbers per row.
        init: Rows start uniform in ``center + [-init, init]``.
        center: See ``init``.
        floor: Smallest distance of a first number from the center.
        storage: How rows are held while training: ``fp32``, or ``int8``, ``int16``, ``alpt`` whose
            updates are rounded at random.
        optimizer: How rows are updated, a key of ``muxrec.tables.optimizer.RULES``.
        serve: Format of the served rows, a key of ``muxrec.tables.rows.ROW_FORMATS``.
        serve_group: Numbers that share a scale in it; 0 for a row.
        scale: First size of a step of stored integers.
        scale_lr: Learning rate of the step sizes, where they are learned.
        seed: The run's seed, for storages that round at random.
    """

    name: str
    rows: int
    width: int
    init: float
    center: float = 0.0
    floor: float = 0.0
    storage: str = "fp32"
    optimizer: str = "adagrad"
    serve: str = "fp32"
    serve_group: int = 0
    scale: float = 0.0
    scale_lr: float = 0.0
    seed: int = 0

    @property
    def is_fused(self) -> bool:
        """Whether fbgemm's kernels can hold and update the rows."""
        return self.storage == "fp32" and self.optimizer == "adagrad"


@dataclass(frozen=True, eq=False)
class Read:
    """One row read per id of one feature.

    Attributes:
        feature: Feature name.
        probe: Number of the read within its feature.
        table: Physical table's name.
        address: How an id becomes a row.
    """

    feature: str
    probe: int
    table: str
    address: Address

    @property
    def key(self) -> str:
        """``feature#probe``, the read's key in a KeyedJaggedTensor."""
        return f"{self.feature}#{self.probe}"


@dataclass(frozen=True)
class Stage:
    """One part of a method's training.

    Attributes:
        name: What it is called in logs, e.g. ``search``.
        share: Share of the epochs, the shares of a method sum to 1; every stage has an epoch at
            least.
        is_search: Whether every fifth step trains the method's architecture parameters, and not
            the weights, on its batch.
        restarts: Whether everything else in the model starts again from its first weights.
    """

    name: str
    share: float = 1.0
    is_search: bool = False
    restarts: bool = False


@dataclass(frozen=True, eq=False)
class Declared:
    """A table as declared, its readers, and where its training is.

    Attributes:
        table: The declaration; its budget is resolved.
        readers: Features that read it, in declared order.
        vocabularies: Known ids of features, by name.
        stage: Number of the stage.
        carried: What earlier stages left: maps, masks, codes.
        seed: The run's seed.
    """

    table: TableSpec
    readers: tuple[FeatureSpec, ...]
    vocabularies: Mapping[str, Vocabulary]
    stage: int = 0
    carried: Arrays = field(default_factory=dict)
    seed: int = 0

    def option(self, name: str) -> float:
        """The table's option ``name``, or its method's default."""
        return self.table.option(name)

    def whole(self, name: str) -> int:
        """The same as an integer."""
        return int(self.option(name))

    def known(self, reader: FeatureSpec) -> Vocabulary:
        """The reader's vocabulary."""
        return self.vocabularies[reader.name]

    def name_of(self, reader: FeatureSpec, part: str = "") -> str:
        """Name of the reader's own physical table, or of a part of it: ``items.brand.cold``."""
        return ".".join(filter(None, (self.table.name, reader.name, part)))

    def physical(self, name: str, rows: int, width: int, **changes: Any) -> PhysicalTable:
        """A physical table with the declaration's first rows and serving format."""
        table = self.table
        given: dict[str, Any] = {
            "serve": table.serve_dtype,
            "serve_group": table.serve_group,
            "optimizer": table.optimizer,
            **changes,
        }
        return PhysicalTable(name, rows, width, given.pop("init", table.init), **given)


@dataclass(frozen=True, eq=False)
class Lowered:
    """One declared table in one stage.

    Attributes:
        tables: Physical tables.
        reads: Reads of all readers, by reader and then by table and probe.
        widths: Width of each reader's vector.
        combines: Reader -> map from its reads, side by side in the order of the tables, to its
            vector; a reader without one has the reads themselves. A map of pooled reads takes
            ``[B, sum of widths]``; see ``per_id``.
        per_id: Readers whose map must see every id alone: it takes ``(rows [N, sum of widths],
            ids [N], index [N] or None)``, gives ``[N, width]``, and the result is pooled. A read
            that was dropped is a row of zeros.
        known: Readers whose unknown ids are dropped; the index of a known id is its row in the
            vocabulary.
        values: Rows to begin with, float32 ``[rows, width]`` by physical table; the others are
            drawn.
        hook: Called after every step of training, or None.
    """

    tables: tuple[PhysicalTable, ...]
    reads: tuple[Read, ...]
    widths: Mapping[str, int]
    combines: Mapping[str, nn.Module] = field(default_factory=dict)
    per_id: frozenset[str] = frozenset()
    known: Mapping[str, Vocabulary] = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)
    hook: Hook | None = None


class Access(Protocol):
    """What a hook may do with tables in training, whichever engine holds them."""

    def local(self, name: str) -> tuple[int, Tensor, Tensor]:
        """First row held here, the rows ``[r, d]`` and their momentum ``[r]``, both writable."""
        ...

    def first_column(self, name: str) -> int:
        """Number of the first column held here; a rank may hold some columns of all rows."""
        ...

    def is_copy(self, name: str) -> bool:
        """Whether every process holds the same rows, so that they count once."""
        ...

    def read_ids(self, feature: str, ids: Tensor) -> Tensor:
        """The vectors of single ids, float32 ``[N, width]``; every rank calls it alike."""
        ...


class Hook(Protocol):
    """Something that a method does between steps."""

    def after_step(self, access: Access, *, step: int, share: float) -> None:
        """Called after the update of step number ``step``; ``share`` of the stage is done."""
        ...


@dataclass(frozen=True, eq=False)
class Advanced:
    """What one stage leaves to the next.

    Attributes:
        carried: Arrays that the following lowerings need, and every checkpoint holds.
        values: Rows that the next lowering begins with, by physical table.
    """

    carried: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)


class Method:
    """One way to turn a declared table and its features into physical tables and reads.

    A method with one stage that is served as it was trained gives :meth:`lower` alone. A combine
    may have ``penalty() -> Tensor``, a term of the loss after its forward, and
    ``architecture() -> list[Parameter]``, which only search steps train. One that sees every id
    alone may have ``in_one_pass``, a kernel for reads and map; see :mod:`muxrec.tables.one_pass`.
    """

    title: str
    """One line for people: what it does and what it costs."""
    source: str
    """The paper."""
    stages: tuple[Stage, ...] = (Stage("train"),)

    def stages_of(self, table: TableSpec) -> tuple[Stage, ...]:
        """The stages of a table's training; by default the same for every table."""
        del table
        return self.stages

    def lower(self, declared: Declared) -> Lowered:
        """The arrays, reads and maps of ``declared`` in its stage."""
        raise NotImplementedError

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """What the stage of ``declared`` leaves to the next; all ranks call it alike.

        Args:
            declared: The stage that ended.
            rows: Its physical tables, whole, float32 on the CPU.
            combines: Its maps, trained.
            evaluate: Quality with the maps as they are now; their buffers may be changed meanwhile.
        """
        del declared, combines, evaluate
        return Advanced(values=rows)

    def freeze(
        self, declared: Declared, rows: Arrays, combines: Mapping[str, nn.Module]
    ) -> Lowered:
        """The form that is served, with its values; by default that of the last stage."""
        lowered = self.lower(declared)
        return replace(lowered, combines=combines, values=rows, hook=None)

    def served_shape(self, declared: Declared) -> Lowered:
        """What :meth:`freeze` will give, before training: arrays of the right shapes."""
        return self.lower(declared)


def shrinks(declared: Declared, reader: FeatureSpec, numbers: int, *, extra_bytes: int = 0) -> bool:
    """Whether a compressed form is smaller than a full table of ``reader``.

    Rows are counted as float32 in every served format, so that all formats have the same training.

    Args:
        declared: The table.
        reader: One of its readers.
        numbers: Numbers of the form's rows and maps.
        extra_bytes: Bytes of its codes, pointers and lists.
    """
    full = declared.known(reader).size * declared.table.width
    return FP32_BYTES * numbers + extra_bytes < FP32_BYTES * full
