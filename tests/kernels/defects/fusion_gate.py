"""Seeded defects of the fusion gate, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from muxrec_kernels.fusion_gate import autograd, reference, triton_kernel
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
FORWARD, BACKWARD = "forward_kernel", "backward_kernel"
DEFECTS = {
    "the last column is missed": (FORWARD, "columns < D)", "columns < D - 1)"),
    "the last item is not written": (FORWARD, "alive = row < batch", "alive = row < batch - 1"),
    "the sides change places": (FORWARD, "z * old.to(tl.float32)", "rest * old.to(tl.float32)"),
    "a missing new side still gates": (
        FORWARD,
        "tl.load(is_new + row * is_new_stride, mask=alive, other=0) != 0",
        "alive",
    ),
    "a missing fused side still gates": (
        FORWARD,
        "tl.load(is_fused + row * is_fused_stride, mask=alive, other=0) != 0",
        "alive",
    ),
    "only the first part is scaled": (
        FORWARD,
        "z * part.to(tl.float32)",
        "(z if i == 0 else 1.0) * part.to(tl.float32)",
    ),
    "every part is read from the first": (FORWARD, "i * part_step", "0 * part_step"),
    "the slice's stride is forgotten": (FORWARD, "row * new_stride", "row * D"),
    "the sigmoid's slope is forgotten": (BACKWARD, "slope * z * rest", "slope"),
    "a gate without a choice has a gradient": (
        BACKWARD,
        "z, rest = gate_of(pre.to(tl.float32), fused_there, new_there)",
        "z, rest = gate_of(pre.to(tl.float32), alive, alive)",
    ),
    "the parts do not move the gate": (BACKWARD, "slope += p * ", "slope += 0.0 * p * "),
    "the last part's gradient is lost": (BACKWARD, "to_new += p\n", "to_new += 0.0 * p\n"),
    "the new side does not move the gate": (BACKWARD, "slope -= p * added", "slope -= 0.0 * added"),
}

BATCH, WIDTH, PARTS = 11, 12, 2


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of the kernels' forward and gradients from the reference in float64."""
    generator = torch.Generator().manual_seed(0)

    def guarded(*size: int) -> Tensor:
        """Random numbers inside a frame of huge ones, which a read outside would bring in."""
        frame = torch.full((BATCH + 2, *size, WIDTH + 4), 1e6)
        inner = frame[1:-1, ..., :WIDTH]
        return inner.copy_(torch.randn(inner.shape, generator=generator))

    there = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool).repeat(1, 3)[:, :BATCH]
    inputs = autograd.Inputs(
        guarded(), guarded(), guarded(), guarded(PARTS), there[0].clone(), there[1].clone()
    )
    leaves = [tensor.double().requires_grad_() for tensor in inputs[:4]]
    exact = reference.fusion_gate(*leaves, *inputs[4:])  # type: ignore[call-arg]
    directions = [torch.linspace(0.1, 1.0, x.numel()).view(x.shape) for x in exact]
    gradients = torch.autograd.grad(exact, leaves, [x.double() for x in directions])
    with poisoned_outputs():
        out = autograd.launch_forward(kernels, inputs)
        back = autograd.launch_backward(kernels, inputs, *directions)
    return {
        FORWARD: max(norm_ratio(a, b.detach()) for a, b in zip(out, exact, strict=True)),
        BACKWARD: max(
            norm_ratio(a, b) for a, b in zip(back, gradients, strict=True) if a is not None
        ),
    }
