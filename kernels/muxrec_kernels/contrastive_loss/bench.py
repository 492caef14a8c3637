"""What the contrastive loss is checked and timed on: in-batch candidates against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from muxrec_kernels.bench.case import Case, Check, Run
from muxrec_kernels.bench.inputs import SETS
from muxrec_kernels.contrastive_loss import Rules, contrastive_loss
from muxrec_kernels.contrastive_loss.reference import positive_rows
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

POSITIVES = 3
TEMPERATURE = 0.05
SIZES = ((16_384, 128, {"eager": 3.0}), (16_384, 1024, {"eager": 1.2}), (4096, 64, {}))
"""Queries and candidates, width, targets."""

ROUNDING = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Probabilities are rounded to 11 or 8 bits before their product, and gradients when they leave;
float32 differs by the rounding of scores of 20 in the exponent."""

AGREEMENT = 3e-2
"""Eager rounds scores of up to 20 to 8 bits."""


class Inputs(NamedTuple):
    """One loss: vectors, its scale and its relation, the latter for torch too.

    Attributes:
        queries: ``[N, D]``.
        candidates: ``[N, D]``.
        scale: float32, one number.
        rules: Three positives per query; every query ignores its own item.
        ignored: The same as a matrix, bool ``[N, N]``.
        rows: Query of each positive, int64 ``[P]``.
        share: Its share, float32 ``[P]``.
    """

    queries: Tensor
    candidates: Tensor
    scale: Tensor
    rules: Rules
    ignored: Tensor
    rows: Tensor
    share: Tensor


Loss = Callable[[Inputs], Tensor]


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Loss and all gradients against the reference in float64."""
    for dtype in ROUNDING:
        for width in (24, 300):
            inputs = _draw(24 if small else 3000, width, dtype, device, seed=width)
            with poisoned_outputs():
                found = _step(_ours, inputs)
            exact = inputs._replace(
                queries=inputs.queries.double(),
                candidates=inputs.candidates.double(),
                scale=inputs.scale.double(),
            )
            expected = _step(_reference, exact)
            ratio = max(norm_ratio(a, b) for a, b in zip(found, expected, strict=True))
            yield Check(f"{_short(dtype)} D {width}", ratio, ROUNDING[dtype])


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Forward with backward, as a training step does it."""
    for count, width, targets in ((20, 16, {}),) if small else SIZES:
        first = _draw(count, width, torch.bfloat16, device, seed=0)
        # Everybody's vectors change from call to call; one matrix of ignored entries is enough.
        sets = [first, *(_vectors(first, seed=at) for at in range(1, SETS))]
        losses: dict[str, Loss] = {"muxrec": _ours, "eager": _eager}
        absent = {}
        if small:
            absent["torch.compile"] = "it compiles for a device"
        else:
            losses["torch.compile"] = torch.compile(_eager)
        yield Case(
            name=f"bf16 D {width}, {count} queries and candidates, forward and backward",
            run={name: _bound(loss, sets) for name, loss in losses.items()},
            # Both sides are read in both passes and both gradients written.
            bytes_moved=6 * count * width * 2,
            flops=3 * 2 * count * count * width,
            targets=targets,
            is_small=not small and count <= 4096,
            absent=absent,
            peak_bytes=True,
            agreement=AGREEMENT,
        )


def _bound(loss: Loss, sets: list[Inputs]) -> Run:
    return lambda at: _step(loss, sets[at % SETS])


def _ours(inputs: Inputs) -> Tensor:
    return contrastive_loss(
        inputs.queries, inputs.candidates, inputs.rules, scale=inputs.scale, backend="triton"
    )


def _reference(inputs: Inputs) -> Tensor:
    return contrastive_loss(
        inputs.queries, inputs.candidates, inputs.rules, scale=inputs.scale, backend="reference"
    )


def _eager(inputs: Inputs) -> Tensor:
    """The loss in plain torch, mask and shares ready: 16-bit products, float32 softmax."""
    scores = (inputs.queries * inputs.scale.to(inputs.queries.dtype)) @ inputs.candidates.T
    scores = scores.float().masked_fill(inputs.ignored, float("-inf"))
    positive = inputs.share * scores[inputs.rows, inputs.rules.columns]
    return (scores.logsumexp(dim=1).sum() - positive.sum()) / len(scores)


def _step(loss: Loss, inputs: Inputs) -> tuple[Tensor, ...]:
    """The loss and the gradients of queries, candidates and scale."""
    leaves = [x.detach().requires_grad_() for x in inputs[:3]]
    queries, candidates, scale = leaves
    value = loss(inputs._replace(queries=queries, candidates=candidates, scale=scale))
    return value.detach(), *torch.autograd.grad(value, leaves)


def _draw(count: int, width: int, dtype: torch.dtype, device: torch.device, *, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    items = torch.arange(count, dtype=torch.int32, device=device)
    steps = torch.randint(
        1, count // POSITIVES, (count, POSITIVES), generator=generator, device=device
    )
    # Three different items, and never the query's own.
    columns = ((items[:, None] + steps.cumsum(dim=1)) % count).sort(dim=1).values.flatten()
    offsets = torch.arange(0, columns.numel() + 1, POSITIVES, device=device)
    weights = 0.1 + torch.rand(columns.numel(), generator=generator, device=device)
    rules = Rules(offsets, columns, weights, query_items=items, candidate_items=items)
    rows = positive_rows(rules)
    share = weights / weights.view(count, POSITIVES).sum(dim=1)[rows]
    empty = torch.empty(count, width, dtype=dtype, device=device)
    scale = torch.tensor(1.0 / TEMPERATURE, device=device)
    ignored = torch.eye(count, dtype=torch.bool, device=device)
    return _vectors(Inputs(empty, empty, scale, rules, ignored, rows, share), seed=seed)


def _vectors(inputs: Inputs, *, seed: int) -> Inputs:
    """The same relation over other unit vectors."""
    shape, device = inputs.queries.shape, inputs.queries.device
    generator = torch.Generator(device).manual_seed(seed)
    queries, candidates = (
        normalize(torch.randn(shape, generator=generator, device=device)).to(inputs.queries.dtype)
        for _ in range(2)
    )
    return inputs._replace(queries=queries, candidates=candidates)


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
