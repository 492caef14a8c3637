"""A problem with planted vectors, and a training of one table through all stages of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.build import Tables, build_tables, has_torchrec, tables_of
from muxrec.tables.lowering import Lowering, Place
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import (
    advance,
    after_step,
    freeze,
    is_search_step,
    keep_maps,
    rows_kept,
    stages_due,
    step_architecture,
    whole_rows,
)

ENGINES = ["reference", *(["torchrec"] if has_torchrec() else [])]
WIDTH, KINDS = 8, 12


@dataclass(frozen=True)
class Planted:
    """One table, its readers, and the vector that every id should get.

    Ids fall into ``KINDS`` kinds, whose members' vectors differ by little; an id's frequency falls
    with its index.

    Attributes:
        method: Table method.
        options: Its options.
        rows: Declared rows.
        sizes: Known ids of each reader.
        columns: Numbers of the vectors that are wanted, the first ones; the others should be 0.
        share: Share of the ids, the most frequent ones, whose vector is not 0.
    """

    method: str
    options: Mapping[str, float] = field(default_factory=dict)
    rows: int | None = None
    sizes: tuple[int, ...] = (240,)
    columns: int = WIDTH
    share: float = 1.0

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The readers ``f0``, ``f1`` and so on."""
        return tuple(
            FeatureSpec(f"f{at}", "id", (f"f{at}",), "id", "t") for at in range(len(self.sizes))
        )

    @property
    def table(self) -> TableSpec:
        """The declared table."""
        return TableSpec("t", self.method, WIDTH, self.rows, options=dict(self.options))  # type: ignore[arg-type]

    @property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Ids 1000, 1001, ... by falling frequency."""
        return {
            f"f{at}": build_vocabulary(
                f"f{at}", 1000 + np.arange(size), counts=2000 // (np.arange(size) + 2)
            )
            for at, size in enumerate(self.sizes)
        }

    def declared(self, stage: int = 0, carried: Mapping[str, Tensor] | None = None) -> Declared:
        """What the method is given."""
        return Declared(self.table, self.features, self.vocabularies, stage, carried or {})

    def targets(self, size: int) -> Tensor:
        """The vector of each index, float32 ``[size, WIDTH]``."""
        generator = torch.Generator().manual_seed(size)
        kinds = torch.randn(KINDS, WIDTH, generator=generator)
        own = 0.1 * torch.randn(size, WIDTH, generator=generator)
        wanted = torch.arange(WIDTH) < self.columns
        is_wanted = torch.arange(size) < self.share * size
        return (kinds[torch.arange(size) * 7 % KINDS] + own) * wanted * is_wanted[:, None]

    def build(
        self, engine: str = "reference", *, places: Mapping[str, Place] | None = None
    ) -> Tables:
        """The tables, at the beginning or in a later stage."""
        return cast(
            Tables,
            build_tables(
                self.features,
                (self.table,),
                vocabularies=self.vocabularies,
                engine=engine,  # type: ignore[arg-type]
                places=places,
                lr=0.1,
            ),
        )

    def batch(self, seed: int, size: int = 64) -> tuple[dict[str, Bags], dict[str, Tensor]]:
        """Bags of one id, frequent ids more often, and the vectors wanted."""
        generator = torch.Generator().manual_seed(seed)
        bags, wanted = {}, {}
        for feature, count in zip(self.features, self.sizes, strict=True):
            odds = 1 / (torch.arange(max(1, count)) + 20.0)
            index = torch.multinomial(odds, size, replacement=True, generator=generator)
            bags[feature.name] = Bags(1000 + index, torch.arange(size + 1))
            wanted[feature.name] = self.targets(max(1, count))[index]
        return bags, wanted

    def loss(self, tables: Tables, seed: int) -> Tensor:
        """Mean squared distance of a batch, without the method's own terms."""
        bags, wanted = self.batch(seed)
        found = tables(bags)
        return torch.stack([(found[n] - wanted[n]).square().mean() for n in wanted]).mean()

    def error(self, tables: Tables) -> float:
        """The loss of a large batch that is not trained on."""
        module = cast(nn.Module, tables)
        was_training = module.training
        with torch.no_grad():
            found = np.mean(
                [float(self.loss(cast(Tables, module.eval()), 10**6 + at)) for at in range(8)]
            )
        module.train(was_training)
        return float(found)


@dataclass(frozen=True)
class Trained:
    """A training through all stages.

    Attributes:
        planted: The problem.
        stages: The tables at the end of each stage.
        frozen: What the last are served as.
        served: The served form in the reference engine.
        first_error: Error before the first step.
    """

    planted: Planted
    stages: tuple[Tables, ...]
    frozen: Lowering
    served: ReferenceTables
    first_error: float

    @property
    def error(self) -> float:
        """Error of the served form."""
        return self.planted.error(cast(Tables, self.served))

    def vectors(self, name: str = "f0") -> Tensor:
        """The served vector of every known id, by index."""
        return vectors_of(cast(Tables, self.served), self.planted, name)


@torch.no_grad()
def vectors_of(tables: Tables, planted: Planted, name: str = "f0") -> Tensor:
    """The vector of every known id of a reader, by index, float32 ``[n, WIDTH]``."""
    nothing = Bags(torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    ids = torch.from_numpy(planted.vocabularies[name].ids())
    if not len(ids):
        return torch.empty(0, WIDTH)
    offsets = torch.arange(len(ids) + 1)
    sparse = {
        f.name: nothing._replace(offsets=torch.zeros(len(ids) + 1, dtype=torch.int64))
        for f in planted.features
    }
    sparse[name] = Bags(ids, offsets)
    module = cast(nn.Module, tables)
    was_training = module.training
    found = cast(Tables, module.eval())(sparse)[name]
    module.train(was_training)
    return found


def train(
    planted: Planted, engine: str = "reference", *, epochs: int = 6, steps: int = 40
) -> Trained:
    """Train ``planted`` as the training loop does and freeze it."""
    tables = planted.build(engine)
    first_error, done = planted.error(tables), []
    for epoch in range(epochs):
        while due := stages_due(tables.lowering, epoch=epoch, epochs=epochs):
            done.append(tables)
            old = tables
            places = advance(
                old, due, rows=whole_rows(old), evaluate=lambda old=old: -planted.error(old)
            )
            tables = planted.build(engine, places=places)
            keep_maps(tables, old)
        _train_epoch(planted, tables, epoch=epoch, epochs=epochs, steps=steps)
    frozen = freeze(tables, whole_rows(tables))
    served = cast(ReferenceTables, tables_of(frozen, engine="reference").eval())
    return Trained(planted, (*done, tables), frozen, served, first_error)


def _train_epoch(planted: Planted, tables: Tables, *, epoch: int, epochs: int, steps: int) -> None:
    cast(nn.Module, tables).train()
    searched = {id(parameter) for parameter in tables.vectors.architecture()}
    mine = [p for p in tables.vectors.parameters() if id(p) not in searched]
    dense = torch.optim.AdamW(mine, lr=1e-2, weight_decay=0.0) if mine else None
    rows = tables.table_optimizer()
    for step in range(steps):
        number = epoch * steps + step
        searches = is_search_step(tables.lowering, number)
        with rows_kept(tables) if searches else nullcontext():
            loss = planted.loss(tables, number)
            penalty = tables.vectors.penalty()
            (loss if penalty is None else loss + penalty).backward()
        if searches:
            step_architecture(tables)
            rows.zero_grad()
        else:
            rows.step()
            if dense:
                dense.step()
        if dense:
            dense.zero_grad()
        part = (step + 1) / steps
        after_step(tables, step=number, epoch=epoch, epochs=epochs, part=part)


def exported(served: ReferenceTables, name: str, ids: Tensor, mask: Tensor, folder: Any) -> Tensor:
    """What onnxruntime answers for padded ids ``[B, L]`` of reader ``name``."""
    onnxruntime = pytest.importorskip("onnxruntime")

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = served

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.tables.lookup_padded(name, ids, mask)

    dim = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        Lookup().eval(), (ids[:3], mask[:3]), dynamo=True, dynamic_shapes=(dim, dim), verbose=False
    )
    assert program is not None
    program.save(str(folder / "lookup.onnx"))
    session = onnxruntime.InferenceSession(
        folder / "lookup.onnx", providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    found = session.run(None, dict(zip(names, (ids.numpy(), mask.numpy()), strict=True)))
    return torch.from_numpy(found[0])


@pytest.fixture
def planted() -> Callable[..., Planted]:
    """``planted(method, options, rows, sizes)``."""
    return Planted


@pytest.fixture
def train_planted() -> Callable[..., Trained]:
    """``train_planted(planted, engine, epochs=, steps=)``."""
    return train


@pytest.fixture
def all_vectors() -> Callable[..., Tensor]:
    """``all_vectors(tables, planted, name)``."""
    return vectors_of


@pytest.fixture
def export_lookup() -> Callable[..., Tensor]:
    """``export_lookup(served, name, ids, mask, folder)``."""
    return exported


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take ``engine`` run on every engine."""
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES)
