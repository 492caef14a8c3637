"""Composed vectors come out of one kernel on Triton, with the answers of reads and map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.build import build_tables
from muxrec.tables.methods.addresses import IndexAddress
from muxrec.tables.methods.codebooks import lower_codes
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.methods.quantiser import CodebookPlan
from muxrec.tables.reference import ReferenceTables
from muxrec_kernels.compositional_lookup import codebook_lookup, launch, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KNOWN = 20
TABLES = {
    "qr": TableSpec("qr", "qr", 8, options={"buckets": 6}),
    "hash_embedding": TableSpec("hash_embedding", "hash_embedding", 8, rows=24),
    "robe": TableSpec("robe", "robe", 7, rows=31),
}
FORMS = {"qr": "quotient_remainder", "hash_embedding": "multi_hash", "robe": "robe"}
NAMES = {method: (f"{method}_mean", f"{method}_sqrt") for method in TABLES}
FEATURES = tuple(
    FeatureSpec(name, "bag", (name,), "attributes", table=method, pooling=name.rsplit("_", 1)[1])  # type: ignore[arg-type]
    for method, names in NAMES.items()
    for name in names
)
PLAIN = FeatureSpec("plain", "bag", ("plain",), "attributes", table="plain", pooling="sum")
VOCABULARIES = {
    feature.name: build_vocabulary(feature.name, range(KNOWN)) for feature in (*FEATURES, PLAIN)
}
each_method = pytest.mark.parametrize("method", list(TABLES))


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReferenceTables]:
    """``build(backend)``: every table and a full one, whose lookups run there from now on."""

    def make(backend: str) -> ReferenceTables:
        monkeypatch.setenv("MUXREC_BACKEND", backend)
        return build_tables(
            (*FEATURES, PLAIN),
            (*TABLES.values(), TableSpec("plain", "full", 4)),
            vocabularies=VOCABULARIES,
            engine="reference",
            device=DEVICE,
        )  # type: ignore[return-value]

    return make


@pytest.fixture
def batch_of(make_batch) -> Callable[..., dict[str, Bags]]:
    """``batch_of(seed, is_weighted)``: bags with empty, repeated, unknown and extreme ids."""

    def make(seed: int, *, is_weighted: bool = False) -> dict[str, Bags]:
        batch = make_batch(tuple(VOCABULARIES), seed=seed, size=3)
        weighted = {
            name: bags._replace(weights=torch.linspace(0.5, 2.0, bags.ids.numel()))
            for name, bags in batch.items()
        }
        chosen = weighted if is_weighted else batch
        return {name: bags.to(DEVICE) for name, bags in chosen.items()}

    return make


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Forms whose kernels were launched, in order."""
    forms: list[str] = []
    for form in FORMS.values():
        run = getattr(launch, f"{form}_forward")
        monkeypatch.setattr(
            launch,
            f"{form}_forward",
            lambda *a, form=form, run=run, **k: forms.append(form) or run(*a, **k),
        )
    return forms


@pytest.mark.parametrize("is_weighted", [False, True])
def test_training_in_one_pass_is_training_by_reads_and_maps(build, batch_of, is_weighted) -> None:
    states = {}
    for backend in ("reference", "triton"):
        tables = build(backend)
        optimizer = tables.table_optimizer()
        for step in range(2):
            batch = batch_of(step, is_weighted=is_weighted)
            sum(v.square().sum() for v in tables(batch).values()).backward()
            optimizer.step()
        states[backend] = tables.export_state()
    for name, rows in states["reference"].tables.items():
        other = states["triton"].tables[name]
        torch.testing.assert_close(rows.weight, other.weight, rtol=0, atol=2e-6)
        torch.testing.assert_close(rows.momentum, other.momentum, rtol=1e-4, atol=1e-9)


def test_vectors_are_the_same_in_order_and_numbers(build, batch_of) -> None:
    batch = batch_of(7)
    expected = build("reference")(batch)
    found = build("triton")(batch)
    assert list(found) == list(expected)
    for name, vectors in expected.items():
        torch.testing.assert_close(found[name], vectors, rtol=0, atol=1e-6)


def test_every_composed_feature_is_one_launch(build, batch_of, launched) -> None:
    tables = build("triton")
    tables(batch_of(0))
    assert launched == [form for form in FORMS.values() for _ in range(2)]


def test_without_triton_no_kernel_runs(build, batch_of, launched) -> None:
    build("reference")(batch_of(0))
    assert launched == []


def test_kept_rows_have_no_gradient(build, batch_of) -> None:
    tables = build("triton")
    tables.vectors.rows_kept = True
    assert not any(vectors.requires_grad for vectors in tables(batch_of(0)).values())


@each_method
def test_the_kernels_reference_is_the_platforms_reads_and_map(build, batch_of, method) -> None:
    tables = build("reference")
    found = tables.vectors.find(batch_of(3))
    expected = tables(batch_of(3))
    for name in NAMES[method]:
        module = tables.vectors.maps[tables.vectors.names.index(name)]
        pooling = tables.vectors.poolings[name]
        rows = [
            table.weight  # type: ignore[attr-defined]
            for table in tables.table_groups()
            if name in table.group.features
        ]
        # Forced to the reference backend, the public function runs the kernel's reference.
        given = module.in_one_pass(rows, found[name], pooling=pooling)  # type: ignore[operator]
        torch.testing.assert_close(given, expected[name], rtol=0, atol=1e-6)


def test_the_codebooks_reference_is_the_platforms_served_form() -> None:
    plan = CodebookPlan(ids=KNOWN, width=6, parts=3, codes=5, tail_codes=5, frequent=KNOWN)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(5, (KNOWN, 3), generator=generator, dtype=torch.uint8)
    codebook = torch.randn(15, 2, generator=generator)
    feature = FeatureSpec("x", "bag", ("x",), "attributes", table="t", pooling="sum")
    declared = Declared(TableSpec("t", "dpq", 6), (feature,), {"x": VOCABULARIES["plain"]})
    lowered = lower_codes(declared, feature, plan, codes)
    index, offsets = torch.tensor([3, 3, 0, 19, 7]), torch.tensor([0, 2, 2, 5])
    assert not any(isinstance(read.address, IndexAddress) for read in lowered.reads)
    rows = [codebook[read.address(index, index, 15)] for read in lowered.reads]
    vectors = torch.cat(rows, dim=1)
    expected = torch.stack([vectors[:2].sum(0), torch.zeros(6), vectors[2:].sum(0)])
    found = codebook_lookup(codes, codebook, index, offsets, backend="reference")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert reference.part_entries(codes, codebook) == plan.codes


def test_seeds_are_made_once_and_serve_training_after_inference() -> None:
    from muxrec.tables.methods.seeds import seeds_on

    with torch.inference_mode():
        first: Tensor = seeds_on(torch.device("cpu"), (5, -6))
    assert first is seeds_on(torch.device("cpu"), (5, -6))
    assert not first.is_inference()
