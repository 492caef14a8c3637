"""The gate's algebra, and parts that add up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from muxrec.towers.fusion import FUSIONS, GateFusion

B, M, D = 16, 4, 8


def _case() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    present = torch.rand(B, M) > 0.4
    present[0], present[1] = True, False
    return torch.randn(B, M, D).masked_fill(~present[:, :, None], 0.0), present


def _set_gates(fusion: GateFusion, bias: float) -> None:
    for gate in fusion.gates:
        weight, offset = gate.parameters()
        torch.nn.init.zeros_(weight)
        torch.nn.init.constant_(offset, bias)


@pytest.mark.parametrize(("bias", "winner"), [(200.0, 0), (-200.0, M - 1)])
def test_a_gate_at_its_end_gives_one_side_alone(bias: float, winner: int) -> None:
    vectors, present = torch.randn(B, M, D), torch.ones(B, M, dtype=torch.bool)
    fusion = GateFusion(M, D)
    _set_gates(fusion, bias)
    assert torch.equal(fusion(vectors, present).sum(dim=1), vectors[:, winner])


def test_the_gate_mixes_elementwise_as_written() -> None:
    vectors, present = torch.randn(B, 2, D), torch.ones(B, 2, dtype=torch.bool)
    fusion = GateFusion(2, D)
    weight, bias = fusion.gates[0].parameters()
    z = torch.sigmoid(torch.cat([vectors[:, 0], vectors[:, 1]], dim=1) @ weight.T + bias)
    expected = torch.stack([z * vectors[:, 0], (1 - z) * vectors[:, 1]], dim=1)
    # Same operations in the same order up to the bias' fused addition: one unit in the last place.
    torch.testing.assert_close(fusion(vectors, present), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("only", range(M))
def test_with_one_modality_the_gate_leaves_it_exactly(only: int) -> None:
    vectors, present = torch.zeros(B, M, D), torch.zeros(B, M, dtype=torch.bool)
    vectors[:, only], present[:, only] = torch.randn(B, D), True
    parts = GateFusion(M, D)(vectors, present)
    assert torch.equal(parts, vectors)


def test_a_missing_modality_leaves_the_rest_of_the_chain_exactly() -> None:
    vectors, present = torch.randn(B, 3, D), torch.ones(B, 3, dtype=torch.bool)
    vectors[:, 2], present[:, 2] = 0.0, False
    long, short = GateFusion(3, D), GateFusion(2, D)
    short.gates[0].load_state_dict(long.gates[0].state_dict())
    assert torch.equal(long(vectors, present)[:, :2], short(vectors[:, :2], present[:, :2]))


@pytest.mark.parametrize("build", FUSIONS.values(), ids=FUSIONS)
def test_a_missing_modality_has_a_part_of_exact_zeros(
    build: Callable[[int, int], nn.Module],
) -> None:
    vectors, present = _case()
    parts = build(M, D)(vectors, present)
    assert parts.shape == (B, M, D)
    assert not parts[~present].any()
    assert parts[present].abs().sum() > 0


@pytest.mark.parametrize("build", FUSIONS.values(), ids=FUSIONS)
def test_an_item_without_modalities_gives_zeros_and_finite_gradients(
    build: Callable[[int, int], nn.Module],
) -> None:
    fusion = build(M, D)
    vectors = torch.zeros(1, M, D, requires_grad=True)
    parts = fusion(vectors, torch.zeros(1, M, dtype=torch.bool))
    parts.sum().backward()
    assert not parts.any()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_the_fused_gate_gives_the_bits_of_the_written_out_chain() -> None:
    vectors, present = _case()
    fusion = GateFusion(M, D)
    fused, is_fused = vectors[:, 0], present[:, 0]
    parts = [fused]
    for step, gate in enumerate(fusion.gates, start=1):
        new, is_new = vectors[:, step], present[:, step]
        z = torch.sigmoid(gate(torch.cat([fused, new], dim=1)))
        z = torch.where((is_fused & is_new)[:, None], z, (is_fused | ~is_new)[:, None].float())
        parts = [z * part for part in parts] + [(1.0 - z) * new]
        fused = z * fused + (1.0 - z) * new
        is_fused = is_fused | is_new
    assert torch.equal(fusion(vectors, present), torch.stack(parts, dim=1))


def test_the_chain_has_the_same_gradients_on_both_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    vectors, present = _case()
    fusion = GateFusion(M, D)
    found = []
    for backend in ("reference", "triton"):
        monkeypatch.setenv("MUXREC_BACKEND", backend)
        leaf = vectors.clone().requires_grad_()
        parts = fusion(leaf, present)
        loss = (parts * torch.linspace(0.5, 1.5, parts.numel()).view(parts.shape)).sum()
        gradients = torch.autograd.grad(loss, [leaf, *fusion.parameters()])
        found.append([parts.detach(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        # A few float32 roundings of a chain of three gates.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_graph_is_exported_of_plain_operations_whatever_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    vectors, present = _case()
    fusion = GateFusion(M, D)
    expected = fusion(vectors, present)
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    program = torch.export.export(fusion, (vectors, present))
    assert torch.equal(program.module()(vectors, present), expected)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.sigmoid.default" in targets
    assert all(target.startswith("aten.") for target in targets)
