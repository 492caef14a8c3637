"""The tables run on the Triton kernels where the dispatcher says so, with the same answers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec.tables.build import build_tables

NAMES = ("item", "genre", "word", "type")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_training_on_triton_is_training_on_the_reference(
    declared, make_batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {}
    for backend in ("reference", "triton"):
        monkeypatch.setenv("MUXREC_BACKEND", backend)
        tables = build_tables(
            declared.features,
            declared.tables,
            vocabularies=declared.vocabularies,
            engine="reference",
            device=DEVICE,
        )
        optimizer = tables.table_optimizer()
        for step in range(3):
            batch = make_batch(NAMES, seed=step, size=4)
            batch = {name: bags.to(DEVICE) for name, bags in batch.items()}
            sum(v.square().sum() for v in tables(batch).values()).backward()
            optimizer.step()
        states[backend] = tables.export_state()
    for name, rows in states["reference"].tables.items():
        other = states["triton"].tables[name]
        torch.testing.assert_close(rows.weight, other.weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows.momentum, other.momentum, rtol=1e-5, atol=1e-9)


def test_the_kernel_is_really_called(declared, make_batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxrec_kernels.multiplexed_lookup import autograd

    calls = []
    launch = autograd.launch_forward
    monkeypatch.setattr(
        autograd, "launch_forward", lambda *a, **k: calls.append(k["pooling"]) or launch(*a, **k)
    )
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    tables = build_tables(
        declared.features,
        declared.tables,
        vocabularies=declared.vocabularies,
        engine="reference",
        device=DEVICE,
    )
    batch = {name: bags.to(DEVICE) for name, bags in make_batch(NAMES, seed=0, size=3).items()}
    tables(batch)
    # The unified table's two features pool differently, so it sums and divides afterwards.
    assert calls == ["sum", "sum"]
