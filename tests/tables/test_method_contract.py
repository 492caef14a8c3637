"""What every table method must hold, over the dict of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables, has_torchrec
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.methods import METHODS
from muxrec.tables.reference import ReferenceTables

ENGINES = ["reference", *(["torchrec"] if has_torchrec() else [])]
PHYSICAL = {"full": "t.f", "hashed": "t.f", "unified": "t"}
VOCABULARY = {"f": build_vocabulary("f", [-(2**63), -1, 0, 1, 2, 3, 2**63 - 1])}

pytestmark = pytest.mark.parametrize("method", METHODS)
Batch = Callable[..., dict[str, Bags]]


def table(method: str, **changes: object) -> TableSpec:
    rows = None if method == "full" else 53
    return replace(TableSpec("t", method, 8, rows=rows), **changes)  # type: ignore[arg-type]


def feature(method: str, pooling: str = "mean", name: str = "f") -> FeatureSpec:
    probes = 1 if method == "full" else 3
    return FeatureSpec(name, "bag", (name,), "attributes", "t", probes, pooling)  # type: ignore[arg-type]


def build(method: str, engine: str = "reference", *, pooling: str = "mean", seed: int = 0):
    return build_tables(
        (feature(method, pooling),),
        (table(method),),
        vocabularies=VOCABULARY,
        engine=engine,  # type: ignore[arg-type]
        seed=seed,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_vector_has_the_announced_width(method: str, engine: str, make_batch: Batch) -> None:
    tables = build(method, engine)
    vectors = tables(make_batch(("f",), seed=1))
    assert vectors["f"].shape == (9, tables.widths["f"])
    assert vectors["f"].dtype == torch.float32


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_bags_are_zeros_even_when_all_are_empty(method: str, engine: str) -> None:
    tables = build(method, engine)
    some = tables({"f": bags_from_lists([[], [1, 2], []])})["f"]
    assert some[0].eq(0).all()
    assert some[1].ne(0).any()
    assert some[2].eq(0).all()
    none = tables({"f": bags_from_lists([[], []])})["f"]
    assert none.shape == (2, tables.widths["f"])
    assert none.eq(0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("pooling", "divisor"), [("sum", 1.0), ("mean", 3.0), ("sqrt", 3.0**0.5)])
def test_a_bag_is_its_ids_vectors_pooled(
    method: str, engine: str, pooling: str, divisor: float
) -> None:
    tables = build(method, engine, pooling=pooling)
    single = tables({"f": bags_from_lists([[1], [2], [3], [2]])})["f"]
    bag = tables({"f": bags_from_lists([[1, 2, 2]])})["f"][0]
    # The three additions may come in another order than here: a few units of the last place.
    torch.testing.assert_close(bag, (single[0] + 2 * single[1]) / divisor, rtol=0, atol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_unseen_and_extreme_ids_are_answered(method: str, engine: str) -> None:
    tables = build(method, engine)
    ids = [-(2**63), 2**63 - 1, 0, -1, 10**18, -(10**18)]
    vectors = tables({"f": bags_from_lists([[i] for i in ids])})["f"]
    assert vectors.isfinite().all()
    unseen = vectors[4:]
    assert unseen.eq(0).all() if method == "full" else unseen.ne(0).any(dim=1).all()


def test_an_unknown_id_counts_in_no_mean_of_a_full_table(method: str) -> None:
    tables = build(method)
    vectors = tables({"f": bags_from_lists([[1, 2], [1, 2, 10**18]])})["f"]
    assert torch.equal(vectors[0], vectors[1]) is (method == "full")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_alone_decides_the_first_rows(method: str, engine: str) -> None:
    batch = {"f": bags_from_lists([[1], [2, 3]])}
    first, again, other = (build(method, engine, seed=seed)(batch)["f"] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_gradient_is_the_numerical_one(method: str, make_batch: Batch) -> None:
    tables = build(method).double()
    assert isinstance(tables, ReferenceTables)
    batch = make_batch(("f",), seed=3, size=4, longest=3)
    weight = tables.table_groups()[0].weight
    direction = torch.rand(4, tables.widths["f"], dtype=torch.float64)
    (tables(batch)["f"] * direction).sum().backward()
    assert weight.grad is not None
    gradient = weight.grad.to_dense()
    step = torch.rand_like(weight)
    with torch.no_grad():
        before = (tables(batch)["f"] * direction).sum()
        weight += 1e-3 * step
        after = (tables(batch)["f"] * direction).sum()
    # The lookup is linear in the rows, so the difference quotient is exact up to rounding.
    torch.testing.assert_close((after - before) / 1e-3, (gradient * step).sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_survives_the_disk(method: str, engine: str, tmp_path, make_batch: Batch) -> None:
    tables, batch = build(method, engine), make_batch(("f",), seed=2)
    optimizer = tables.table_optimizer()
    tables(batch)["f"].square().sum().backward()
    optimizer.step()
    write_state(tables.export_state(), tmp_path)
    for other in ENGINES:
        fresh = build(method, other, seed=9)
        fresh.load_table_state(read_state(tmp_path))
        torch.testing.assert_close(fresh(batch)["f"], tables(batch)["f"], rtol=0, atol=1e-7)
        ours, theirs = (
            tables.export_state().tables[PHYSICAL[method]],
            fresh.export_state().tables[PHYSICAL[method]],
        )
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.momentum, theirs.momentum)
        assert ours.momentum.gt(0).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_adding_a_feature_moves_no_other_vector(
    method: str, engine: str, make_batch: Batch
) -> None:
    shared = method == "unified"
    newcomer = replace(feature(method, name="a"), table="t" if shared else "u")
    spare = () if shared else (replace(table(method), name="u"),)
    both = build_tables(
        (newcomer, feature(method)),
        (*spare, table(method)),
        vocabularies={**VOCABULARY, "a": build_vocabulary("a", range(5))},
        engine=engine,  # type: ignore[arg-type]
    )
    batch = make_batch(("f", "a"), seed=4)
    assert torch.equal(both(batch)["f"], build(method, engine)(batch)["f"])


@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
def test_padded_lookups_are_the_jagged_ones(
    method: str, pooling: str, make_batch: Batch, pad
) -> None:
    tables = build(method, pooling=pooling)
    batch = make_batch(("f",), seed=6, size=40)
    padded = tables.lookup_padded("f", *pad(batch["f"]))
    # Sums of at most five numbers below 0.05 in another order.
    torch.testing.assert_close(padded, tables(batch)["f"], rtol=0, atol=1e-7)


def test_a_title_says_what_the_method_does(method: str) -> None:
    assert 20 < len(METHODS[method].title) < 100
