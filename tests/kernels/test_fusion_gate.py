"""The Triton fusion gate against its reference, forward and gradients."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.dispatch import Backend, BackendError
from muxrec_kernels.fusion_gate import fusion_gate
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# One rounding of the result to 24, 11 or 8 bits; half a unit in the last place is 2**-11 and 2**-8.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
DTYPES = list(TOLERANCES)


class Gate(NamedTuple):
    """Arguments of the operation, in order."""

    logits: Tensor
    fused: Tensor
    new: Tensor
    parts: Tensor
    is_fused: Tensor
    is_new: Tensor


def draw(
    batch: int, width: int, parts: int = 1, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Gate:
    """Random vectors; the first four items show the four combinations of masks."""
    generator = torch.Generator().manual_seed(seed)
    logits, fused, new = torch.randn(3, batch, width, generator=generator).to(dtype).to(DEVICE)
    earlier = torch.randn(batch, parts, width, generator=generator).to(dtype).to(DEVICE)
    masks = torch.rand(2, batch, generator=generator) > 0.4
    masks[:, :4] = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)[:, :batch]
    return Gate._make([4 * logits, fused, new, earlier, *masks.to(DEVICE)])


def run(gate: Gate, backend: Backend, *, outputs: str = "both") -> tuple[Tensor, ...]:
    """Total, parts and four gradients; every number of an output has a weight of its own."""
    leaves = [tensor.detach().requires_grad_() for tensor in gate[:4]]
    out = fusion_gate(
        *gate._replace(**dict(zip(Gate._fields, leaves, strict=False))), backend=backend
    )
    led = {"both": out, "total": out[:1], "parts": out[1:]}[outputs]
    weights = [torch.linspace(0.5, 1.5, x.numel(), device=x.device).view(x.shape) for x in led]
    # Weights that every dtype holds exactly: the comparison is of the kernel, not of its inputs.
    weights = [w.bfloat16().to(x.dtype) for w, x in zip(weights, led, strict=True)]
    gradients = torch.autograd.grad(led, leaves, weights, allow_unused=True, materialize_grads=True)
    return (*(x.detach() for x in out), *gradients)


def compare(gate: Gate, *, outputs: str = "both") -> None:
    exact = Gate(*(x.double() if x.is_floating_point() else x for x in gate))
    expected = run(exact, Backend.REFERENCE, outputs=outputs)
    with poisoned_outputs():
        found = run(gate, Backend.TRITON, outputs=outputs)
    tolerance = max(TOLERANCES[gate.fused.dtype], TOLERANCES[gate.logits.dtype])
    for ours, theirs, like in zip(
        found, expected, (*gate[1:2], gate.parts, *gate[:4]), strict=True
    ):
        assert ours.dtype == like.dtype
        assert norm_ratio(ours, theirs) <= tolerance


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("batch", "width", "parts"), [(1, 1, 1), (37, 64, 1), (9, 96, 3), (5, 300, 2)]
)
def test_total_parts_and_gradients_agree(
    batch: int, width: int, parts: int, dtype: torch.dtype
) -> None:
    compare(draw(batch, width, parts, dtype=dtype))


@given(
    batch=st.integers(1, 40),
    width=st.integers(1, 70),
    parts=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=12, deadline=None)
def test_any_shape_agrees(batch: int, width: int, parts: int, dtype: torch.dtype) -> None:
    compare(draw(batch, width, parts, dtype=dtype))


@pytest.mark.parametrize("outputs", ["total", "parts"])
def test_a_loss_of_one_output_alone_has_the_right_gradients(outputs: str) -> None:
    compare(draw(9, 12, 2), outputs=outputs)


def test_logits_of_autocast_gate_vectors_of_float32() -> None:
    gate = draw(9, 12)
    compare(gate._replace(logits=gate.logits.bfloat16()))


def test_slices_of_wider_tensors_are_read_where_they_lie() -> None:
    wide = torch.randn(7, 5, 24, device=DEVICE)
    there = torch.rand(7, 5, device=DEVICE) > 0.3
    compare(Gate(wide[:, 4], wide[:, 0], wide[:, 3], wide[:, 1:3], there[:, 0], there[:, 1]))
    compare(
        Gate(
            wide[:, 4, ::2], wide[:, 0, ::2], wide[:, 3, ::2], wide[:, :1, ::2],
            there[:, 0], there[:, 1],
        )
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", ["fused", "new"])
def test_a_side_that_is_alone_stays_bit_for_bit(side: str, dtype: torch.dtype) -> None:
    gate = draw(6, 40, dtype=dtype)
    there = torch.ones(6, dtype=torch.bool, device=DEVICE)
    alone = getattr(gate, side)
    gate = gate._replace(**{"fused" if side == "new" else "new": torch.zeros_like(alone)})
    gate = gate._replace(parts=gate.fused[:, None], is_fused=there, is_new=there)
    gate = gate._replace(**{"is_fused" if side == "new" else "is_new": ~there})
    total, parts = fusion_gate(*gate, backend=Backend.TRITON)
    assert torch.equal(total, alone)
    assert torch.equal(parts, torch.stack([gate.fused, gate.new], dim=1))


def test_a_gate_without_a_choice_has_no_gradient() -> None:
    gate = draw(4, 8)
    gradient = run(gate, Backend.TRITON)[2]
    assert gradient[0].all()
    assert not gradient[1:].any()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_logits_far_out_open_and_close_the_gate_exactly() -> None:
    gate = draw(1, 8)
    for logit, winner in ((200.0, gate.fused), (-200.0, gate.new)):
        total, _ = fusion_gate(*gate._replace(logits=torch.full_like(gate.logits, logit)))
        assert torch.equal(total, winner)
        total, _ = fusion_gate(
            *gate._replace(logits=torch.full_like(gate.logits, logit)), backend=Backend.TRITON
        )
        assert torch.equal(total, winner)


@pytest.mark.parametrize("backend", list(Backend))
def test_an_empty_batch_gives_empty_results(backend: Backend) -> None:
    found = run(draw(0, 8, 2), backend)
    assert [tuple(x.shape) for x in found[:2]] == [(0, 8), (0, 3, 8)]
    assert [tuple(x.shape) for x in found[2:]] == [(0, 8)] * 3 + [(0, 2, 8)]


def test_every_run_gives_the_same_bits() -> None:
    gate = draw(33, 20, 2)
    first, second = run(gate, Backend.TRITON), run(gate, Backend.TRITON)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nan_stays_nan_in_every_dtype() -> None:
    for dtype in DTYPES:
        gate = draw(1, 4, dtype=dtype)
        gate.fused.view(torch.int32 if dtype == torch.float32 else torch.int16)[0, 1] = -1
        total, _ = fusion_gate(*gate, backend=Backend.TRITON)
        assert total.isnan().tolist() == [[False, True, False, False]]


GATE = draw(4, 8, 2)
WRONG = {
    "fused must be floating-point": {"fused": GATE.fused.long()},
    "new must be torch.float32": {"new": GATE.new.half()},
    "logits must be floating-point": {"logits": GATE.logits[:, :4]},
    "parts must be \\[4, m, 8\\]": {"parts": GATE.parts[:3]},
    "parts must be torch.float32": {"parts": GATE.parts.half()},
    "is_fused must be bool \\[4\\]": {"is_fused": GATE.is_fused.long()},
    "is_new must be bool \\[4\\]": {"is_new": GATE.is_new[:3]},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fusion_gate(*GATE._replace(**WRONG[message]))


def test_triton_refuses_float64_and_an_unknown_backend_is_named() -> None:
    doubled = Gate(*(x.double() if x.is_floating_point() else x for x in GATE))
    with pytest.raises(ValueError, match=r"Triton gates .* got torch.float64"):
        fusion_gate(*doubled, backend=Backend.TRITON)
    with pytest.raises(BackendError, match="must be one of"):
        fusion_gate(*GATE, backend="cutlass")
