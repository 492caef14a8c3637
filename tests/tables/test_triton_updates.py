"""On Triton hashed tables update their rows without a gradient of them, with the same answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec.tables import held
from muxrec.tables.build import build_tables
from muxrec.tables.reference import ReferenceTables
from muxrec_kernels.row_update import launch

NAMES = ("item", "genre", "word", "type")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def build(declared, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReferenceTables]:
    """``build(backend, optimizer)``: tables whose lookups run there from now on."""

    def make(backend: str = "triton", optimizer: str = "adagrad") -> ReferenceTables:
        monkeypatch.setenv("MUXREC_BACKEND", backend)
        return build_tables(
            declared.features,
            [replace(table, optimizer=optimizer) for table in declared.tables],
            vocabularies=declared.vocabularies,
            engine="reference",
            device=DEVICE,
        )  # type: ignore[return-value]

    return make


@pytest.fixture
def batch_of(make_batch) -> Callable[[int], dict]:
    """``batch_of(seed)``: a small batch on the device."""
    return lambda seed: {
        name: bags.to(DEVICE) for name, bags in make_batch(NAMES, seed=seed, size=3).items()
    }


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the updates that the kernels made."""
    kinds: list[str] = []
    run = launch.launch_update
    monkeypatch.setattr(
        launch, "launch_update", lambda *a, **k: kinds.append(k["rule"].kind) or run(*a, **k)
    )
    return kinds


def loss_of(tables: ReferenceTables, batch: dict) -> torch.Tensor:
    return torch.stack([v.square().sum() for v in tables(batch).values()]).sum()


def hashed(tables: ReferenceTables) -> list[held.TableGroup]:
    return [each for each in tables.groups if isinstance(each, held.TableGroup)][-2:]


def compare(found: ReferenceTables, expected: ReferenceTables) -> None:
    ours, theirs = found.export_state().tables, expected.export_state().tables
    for name, rows in theirs.items():
        torch.testing.assert_close(ours[name].weight, rows.weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours[name].momentum, rows.momentum, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("optimizer", "steps"), [("adagrad", 20), ("rmsprop", 6)])
def test_many_steps_end_where_the_reference_ends(
    optimizer: str, steps: int, build, batch_of, launched: list[str]
) -> None:
    trained = {}
    for backend in ("reference", "triton"):
        tables = trained[backend] = build(backend, optimizer)
        handle = tables.table_optimizer()
        for step in range(steps):
            loss_of(tables, batch_of(step)).backward()
            handle.step()
    compare(trained["triton"], trained["reference"])
    assert launched == [optimizer] * (2 * steps)


def test_a_backward_makes_no_gradient_of_rows(build, batch_of) -> None:
    tables = build()
    loss_of(tables, batch_of(0)).backward()
    assert all(each.weight.grad is None for each in hashed(tables))
    assert all(each.deferred.is_waiting for each in hashed(tables))


def test_gradients_of_several_backwards_add_up(build, batch_of, launched: list[str]) -> None:
    trained = {}
    for backend in ("reference", "triton"):
        tables = trained[backend] = build(backend)
        handle = tables.table_optimizer()
        for step in range(2):
            for part in range(3):
                loss_of(tables, batch_of(3 * step + part)).backward()
            handle.step()
        (loss_of(tables, batch_of(7)) + loss_of(tables, batch_of(8))).backward()
        handle.step()
    compare(trained["triton"], trained["reference"])
    assert launched == []


def test_dropped_gradients_change_nothing(build, batch_of, launched: list[str]) -> None:
    tables = build()
    before = tables.export_state()
    handle = tables.table_optimizer()
    loss_of(tables, batch_of(0)).backward()
    handle.zero_grad()
    handle.step()
    for name, rows in tables.export_state().tables.items():
        assert torch.equal(rows.weight, before.tables[name].weight)
    assert launched == []


def test_a_batch_without_ids_is_no_update(build, make_batch) -> None:
    tables = build(optimizer="rmsprop")
    batch = {n: b.to(DEVICE) for n, b in make_batch(NAMES, seed=0, size=2, longest=0).items()}
    loss_of(tables, batch).backward()
    tables.table_optimizer().step()
    assert [int(each.updates) for each in hashed(tables)] == [0, 0]


def test_whoever_listens_to_a_weight_gets_its_gradient(build, batch_of) -> None:
    tables, heard = build(), []
    listened, other = hashed(tables)
    listened.weight.register_hook(lambda gradient: heard.append(gradient.shape))
    loss_of(tables, batch_of(0)).backward()
    assert heard == [listened.weight.shape]
    assert listened.weight.grad is not None
    assert listened.weight.grad.is_sparse
    assert other.weight.grad is None


def test_several_processes_exchange_gradients(
    build, batch_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = build()
    monkeypatch.setattr(held, "world_size", lambda: 2)
    loss_of(tables, batch_of(0)).backward()
    assert all(each.weight.grad is not None for each in hashed(tables))


def test_the_reference_never_defers(build, batch_of) -> None:
    tables = build("reference")
    loss_of(tables, batch_of(0)).backward()
    assert all(each.weight.grad is not None for each in hashed(tables))
    assert not any(each.deferred.is_waiting for each in hashed(tables))
