"""What the fusion gate is checked and timed on: batches of item vectors against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from muxrec_kernels.bench.case import Case, Check, Run
from muxrec_kernels.bench.inputs import SETS
from muxrec_kernels.fusion_gate import fusion_gate, reference
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

BATCH = 65_536
WIDTHS = (64, 256, 1024)
TARGETS = {"torch.compile": 1.0, "eager": 1.5}
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Results leave in the dtype of the vectors: one rounding to 11 or 8 bits, two for a gradient."""

Gate = Callable[..., tuple[Tensor, Tensor]]
Inputs = tuple[Tensor, ...]


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Total, parts and gradients against the reference in float64."""
    for dtype in ROUNDING:
        for width, modalities in ((64, 2), (96, 4)):
            inputs = _draw(37 if small else 5000, width, modalities - 1, dtype, device, seed=width)
            with poisoned_outputs():
                found = _step(_ours, inputs)
            doubled = tuple(x.double() if x.is_floating_point() else x for x in inputs)
            exact = _step(reference.fusion_gate, doubled)
            ratio = max(norm_ratio(a, b) for a, b in zip(found, exact, strict=True))
            yield Check(
                f"{_short(dtype)} D {width}, {modalities} modalities", ratio, ROUNDING[dtype]
            )


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """The first gate of a chain, forward with backward and forward alone."""
    batch, widths = (24, (16,)) if small else (BATCH, WIDTHS)
    for width in widths:
        for dtype in (torch.float32, torch.bfloat16):
            yield _case(batch, width, dtype, device, backward=True, small=small)
    yield _case(batch, widths[0], torch.float32, device, backward=False, small=small)


def _case(
    batch: int, width: int, dtype: torch.dtype, device: torch.device, *, backward: bool, small: bool
) -> Case:
    sets = [_draw(batch, width, 1, dtype, device, seed=at) for at in range(SETS)]
    work = _step if backward else _forward
    gates: dict[str, Gate] = {"muxrec": _ours, "eager": reference.fusion_gate}
    absent = {}
    if small:
        absent["torch.compile"] = "it compiles for a device"
    else:
        gates["torch.compile"] = torch.compile(reference.fusion_gate)
    # Forward reads logits, fused and new (parts are fused) and writes the total and two parts; the
    # backward reads the same and three gradients and writes four.
    tensors = 6 + (10 if backward else 0)
    return Case(
        name=f"{_short(dtype)} D {width}, {'forward and backward' if backward else 'forward'}, "
        f"batch {batch}",
        run={name: _bound(work, gate, sets) for name, gate in gates.items()},
        bytes_moved=tensors * batch * width * dtype.itemsize,
        targets=TARGETS,
        absent=absent,
    )


def _bound(work: Callable[[Gate, Inputs], object], gate: Gate, sets: list[Inputs]) -> Run:
    return lambda at: work(gate, sets[at])


def _ours(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return fusion_gate(*inputs, backend="triton")


def _forward(gate: Gate, inputs: Inputs) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return gate(*inputs[:4], *inputs[6:])


def _step(gate: Gate, inputs: Inputs) -> tuple[Tensor, ...]:
    """Total, parts, and the gradients of logits, fused, new and parts."""
    *floats, first_grad, second_grad, is_fused, is_new = inputs
    leaves = [tensor.detach().requires_grad_() for tensor in floats]
    out = gate(*leaves, is_fused, is_new)
    gradients = torch.autograd.grad(out, leaves, (first_grad, second_grad))
    return (*(tensor.detach() for tensor in out), *gradients)


def _draw(
    batch: int, width: int, parts: int, dtype: torch.dtype, device: torch.device, *, seed: int
) -> Inputs:
    """Logits, fused, new, parts, gradients of total and parts, and the masks."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device).to(dtype)

    there = torch.rand(2, batch, generator=generator, device=device) > 0.2
    fused = normal(batch, width)
    earlier = fused[:, None] if parts == 1 else normal(batch, parts, width)
    floats = (normal(batch, width), fused, normal(batch, width), earlier)
    gradients = (normal(batch, width), normal(batch, parts + 1, width))
    return (*floats, *gradients, there[0], there[1])


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
