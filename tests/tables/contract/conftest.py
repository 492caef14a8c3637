"""Small declarations of every method, in one place, and a short training through all its stages.

The tests of this folder are parametrised over ``METHODS``: a method that is added there needs an
entry in ``CASES`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import Tables, build_tables, has_torchrec, tables_of
from muxrec.tables.lowering import Lowering, Place
from muxrec.tables.methods import METHODS
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
EXTREMES = (-(2**63), -1, 0, 2**63 - 1)
MANY, FEW = 60, 13
FORMATS = ("fp32", "fp16", "int8")
OWN = ("fp32",)
"""What a table declares that is served by the codes it was trained with."""
EPOCHS, STEPS = 4, 5


@dataclass(frozen=True)
class Case:
    """A method with small sizes, and what of the contract it is exempt from.

    Attributes:
        method: The method; it begins the names of the features and of the table too.
        rows: Declared rows.
        options: Options other than the defaults.
        probes: Rows read per id; vectors have 8 numbers whatever it is.
        no_gradient: Stages in which a gradient is not the numerical one, and why;
            ``<stage>, architecture`` for that of architecture parameters.
        not_served_as_trained: Why the served form answers otherwise than the last stage; None where
            it answers the same.
        export_error: Largest difference of the exported graph's numbers.
        moved_by_others: Why a new feature on the same table moves the others' vectors; None where
            it moves nothing. A new feature on another table never does.
        serves: Formats that it may be served in.
        fills: Share of a budget that it fills at least; less where its sizes are far apart.
    """

    method: str
    rows: int | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    probes: int = 1
    no_gradient: Mapping[str, str] = field(default_factory=dict)
    not_served_as_trained: str | None = None
    export_error: float = 1e-6
    moved_by_others: str | None = None
    serves: tuple[str, ...] = FORMATS
    fills: float = 0.97

    @property
    def names(self) -> tuple[str, str]:
        """The features: bags of many ids and of few."""
        return f"{self.method}_many", f"{self.method}_few"

    @property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Known ids with the extreme ones among them, some far more frequent than others."""
        return dict(zip(self.names, map(known_ids, self.names, (MANY, FEW)), strict=True))

    def features(self, *poolings: str) -> tuple[FeatureSpec, ...]:
        """Both readers of the table, pooled as given."""
        given = poolings or ("mean", "sqrt")
        return tuple(
            FeatureSpec(name, "bag", (name,), "attributes", self.method, self.probes, pooling)  # type: ignore[arg-type]
            for name, pooling in zip(self.names, given, strict=True)
        )

    def table(self, *, width: int = 8, **changes: Any) -> TableSpec:
        """The declared table."""
        row = width // self.probes
        given = {"rows": self.rows, "options": dict(self.options), "init": 0.1, **changes}
        return TableSpec(self.method, self.method, row, **given)  # type: ignore[arg-type]

    def build(
        self,
        engine: str = "reference",
        *,
        poolings: tuple[str, str] = ("mean", "sqrt"),
        seed: int = 0,
        places: Mapping[str, Place] | None = None,
        **changes: Any,
    ) -> Tables:
        """The tables before training, or in a later stage."""
        built = build_tables(
            self.features(*poolings),
            (self.table(**changes),),
            vocabularies=self.vocabularies,
            engine=engine,  # type: ignore[arg-type]
            seed=seed,
            places=places,
        )
        return cast(Tables, built)

    def batch(self, *, seed: int, size: int = 16, longest: int = 4) -> dict[str, Bags]:
        """Bags of known, unknown and extreme ids; the first is empty, the second is full."""
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, words in self.vocabularies.items():
            lengths = torch.randint(0, longest + 1, (size,), generator=generator)
            lengths[0], lengths[1] = 0, longest
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            pool = torch.from_numpy(np.append(words.ids(), [10**15, -(10**15)]))
            drawn = torch.randint(len(pool), (int(offsets[-1]),), generator=generator)
            found[name] = Bags(pool[drawn], offsets)
        return found

    def bags(self, ids: list[list[int]], weights: list[list[float]] | None = None):
        """The same bags for both features."""
        return dict.fromkeys(self.names, bags_from_lists(ids, weights))

    def drops(self, tables: Tables, name: str) -> bool:
        """Whether the feature's unknown ids are dropped."""
        return name in tables.lowering.known

    def train(self, tables: Tables, *, epoch: int = 0, steps: int = STEPS) -> list[float]:
        """One epoch of the training loop's steps; the losses."""
        return _train(self, tables, epoch=epoch, steps=steps)

    def loss(self, tables: Tables, batch: Mapping[str, Bags]) -> Tensor:
        """Distance of the vectors from numbers that the ids decide, with the method's terms."""
        return _loss(tables, batch)

    def walk(self, serve: str = "fp32", engine: str = "reference") -> Walked:
        """The case trained through its stages; not to be changed."""
        return _walk(self.method, serve, engine)


def known_ids(name: str, count: int) -> Vocabulary:
    """``count`` ids, the extreme ones included, with falling counts."""
    ids = [*EXTREMES, *range(100, 100 + count - len(EXTREMES))]
    return build_vocabulary(name, ids, counts=[1 + 300 // (at + 1) for at in range(count)])


DEALT = "its rows are dealt to the readers by their known ids"
STEPPED = {"train": "rows are integers: there is no small step to take"}
STRAIGHT = {"quantise": "the gradient passes straight through the choice of a centroid"}
CASES = {
    case.method: case
    for case in (
        Case("full"),
        Case("hashed", rows=41, probes=2, moved_by_others=DEALT),
        Case("unified", rows=41, probes=2),
        Case("narrow", options={"dim": 2}, fills=0.6),
        Case(
            "mde",
            options={"alpha": 1.0},
            moved_by_others="its widths follow the smallest feature",
            fills=0.5,
        ),
        Case("qr", options={"buckets": 8}),
        Case("tt", options={"rank": 2}, export_error=1e-5, fills=0.9),
        Case("dhe", options={"hidden": 8, "hashes": 16}, export_error=1e-5, fills=0.9),
        Case("robe", rows=31),
        Case("hash_embedding", rows=24),
        Case("memcom", rows=24, moved_by_others=DEALT),
        Case("adapt", rows=24, moved_by_others=DEALT),
        Case("dedup", options={"kept": 0.5, "block": 4, "distance": 0.05}),
        Case("dpq", no_gradient=STRAIGHT, fills=0.5),
        Case(
            "mgqe",
            options={"frequent": 0.2},
            no_gradient=STRAIGHT,
            fills=0.5,
        ),
        Case("cce", rows=12, options={"columns": 2, "rounds": 2}),
        Case("int8", no_gradient=STEPPED, serves=OWN),
        Case("int16", no_gradient=STEPPED, serves=OWN),
        Case("alpt", no_gradient=STEPPED, serves=OWN),
        Case("autodim"),
        Case(
            "optembed",
            options={"rounds": 2},
            no_gradient={"supernet": "steps have a made-up slope"},
        ),
        Case("deeplight"),
        Case("autosrh", no_gradient={"search, architecture": "gates' gradients are made even"}),
        Case("pep"),
        Case("cafe", rows=24, options={"every": 3}, moved_by_others=DEALT),
    )
}


@dataclass(frozen=True)
class Walked:
    """A training through all stages.

    Attributes:
        ended: The tables at the end of each stage, by its name.
        frozen: What they are served as.
        served: The served form in the reference engine.
    """

    ended: Mapping[str, Tables]
    frozen: Lowering
    served: ReferenceTables

    @property
    def trained(self) -> Tables:
        """The tables of the last stage."""
        return list(self.ended.values())[-1]


@cache
def _walk(method: str, serve: str, engine: str) -> Walked:
    """Train ``CASES[method]`` through its stages and freeze it."""
    case = CASES[method]
    tables = case.build(engine, serve_dtype=serve)
    ended = {_stage_of(tables): tables}
    for epoch in range(EPOCHS):
        while due := stages_due(tables.lowering, epoch=epoch, epochs=EPOCHS):
            tables = _next_stage(case, tables, due, engine=engine, serve_dtype=serve)
            ended[_stage_of(tables)] = tables
        case.train(tables, epoch=epoch)
    cast(nn.Module, tables).eval()
    frozen = freeze(tables, whole_rows(tables))
    served = cast(ReferenceTables, tables_of(frozen, engine="reference").eval())
    return Walked(ended, frozen, served)


def _next_stage(case: Case, tables: Tables, due: Mapping[str, int], **changes: Any) -> Tables:
    """The tables in their next stage, as the training loop makes them."""
    rows = whole_rows(tables)
    places = advance(tables, due, rows=rows, evaluate=lambda: -_evaluated_loss(case, tables))
    renewed = case.build(places=places, **changes)
    keep_maps(renewed, tables)
    return renewed


def _train(case: Case, tables: Tables, *, epoch: int, steps: int) -> list[float]:
    cast(nn.Module, tables).train()
    rows, dense = tables.table_optimizer(), _dense_optimizer(tables)
    losses = []
    for step in range(steps):
        number = epoch * steps + step
        torch.manual_seed(number)
        searches = is_search_step(tables.lowering, number)
        with rows_kept(tables) if searches else nullcontext():
            loss = _loss(tables, case.batch(seed=number))
            losses.append(float(loss.detach()))
            if loss.requires_grad:
                loss.backward()
        if searches:
            step_architecture(tables)
            rows.zero_grad()
        else:
            rows.step()
            if dense is not None:
                dense.step()
        if dense is not None:
            dense.zero_grad()
        part = (step + 1) / steps
        after_step(tables, step=number, epoch=epoch, epochs=EPOCHS, part=part)
    return losses


def _dense_optimizer(tables: Tables) -> torch.optim.Optimizer | None:
    """Adam of the maps' parameters; None where they have none."""
    others = {id(parameter) for parameter in tables.vectors.architecture()}
    mine = [p for p in tables.vectors.parameters() if p.requires_grad and id(p) not in others]
    return torch.optim.AdamW(mine, lr=1e-2) if mine else None


def _loss(tables: Tables, batch: Mapping[str, Bags]) -> Tensor:
    losses = []
    for name, vectors in tables(batch).items():
        lengths = batch[name].lengths().clamp(min=1)
        bags = torch.arange(len(lengths)).repeat_interleave(batch[name].lengths())
        wanted = torch.zeros(len(lengths)).index_add(0, bags, (batch[name].ids % 7).float())
        target = (wanted / lengths)[:, None].to(vectors.dtype) * 0.1
        losses.append((vectors - target).square().mean())
    penalty = tables.vectors.penalty()
    total = torch.stack(losses).sum()
    return total if penalty is None else total + penalty


def _evaluated_loss(case: Case, tables: Tables) -> float:
    """The loss on a batch that is not trained on."""
    module = cast(nn.Module, tables)
    was_training = module.training
    with torch.no_grad():
        loss = float(_loss(cast(Tables, module.eval()), case.batch(seed=999)))
    module.train(was_training)
    return loss


def _stage_of(tables: Tables) -> str:
    declared = tables.lowering.declared[0]
    return METHODS[declared.table.method].stages_of(declared.table)[declared.stage].name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run for every method, its served formats and the engines, as their arguments ask."""
    cases = [CASES[name] for name in METHODS]
    if "serve" in metafunc.fixturenames:
        both = [(case, serve) for case in cases for serve in case.serves]
        names = [f"{case.method}-{serve}" for case, serve in both]
        metafunc.parametrize(("case", "serve"), both, ids=names)
    elif "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases, ids=list(METHODS))
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES)


@pytest.fixture
def engines() -> list[str]:
    """The engines that are installed."""
    return ENGINES


@pytest.fixture(scope="session")
def all_cases() -> list[Case]:
    """The cases of all methods."""
    return [CASES[name] for name in METHODS]
