"""What the row update is checked and timed on: row-wise Adagrad after hashed lookups of one table.

Only backward and update are timed. A peer's forward runs once per input set before the clock; its
graph is kept, so that every timed call is its backward with the optimiser in it. fbgemm keeps the
rows of the forward: "given rows" reads those, "with hashing" makes them again, as ours does, by the
kernel that makes ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from muxrec_kernels.bench.case import Case, Check, Run
from muxrec_kernels.bench.inputs import draw_ids, draw_lengths, offsets_of
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup
from muxrec_kernels.row_update import (
    KINDS,
    RowState,
    Rule,
    new_state,
    slots_of_features,
    update_rows,
    update_rows_of_lookup,
)
from muxrec_kernels.row_update.workloads import (
    FP16,
    TINY,
    WORKLOADS,
    Inputs,
    Problem,
    draw,
    new_table,
    rows_of,
)
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

RULE = Rule("adagrad", 0.02)
HASHING, GIVEN = "fbgemm TBE with hashing", "fbgemm TBE given rows"
SPARSE, SORTED = "muxrec, sparse gradient", "muxrec, rows given"
TOLERANCES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""16-bit tables are rounded stochastically, by up to a step."""
SHOWN = 1024
"""Rows that a call returns, for comparison with the peers' on the first one."""


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Every rule and dtype against the reference in float64, weighted means of jagged bags."""
    batch, rows = (3, 7) if small else (500, 3000)
    lengths = draw_lengths(3 * batch, length=2 if small else "jagged", seed=1)
    offsets = offsets_of(lengths, device)
    count = int(lengths.sum())
    ids = draw_ids(count, distinct=2000, kind="zipf-1.2", seed=2, device=device)
    slot_features = torch.tensor([2, 0, 0, 1], device=device)
    seeds = torch.tensor([5, -7, 11, 2**62], device=device)
    weights = torch.rand(count, device=device)
    lookup = (ids, offsets, slots_of_features(slot_features, 3), seeds)
    for dtype, tolerance in TOLERANCES.items():
        for kind in KINDS:
            table = torch.randn(rows, 8 if small else 64, device=device).to(dtype)
            grad_out = torch.randn(batch, 4 * table.shape[1], device=device)
            rule, state = Rule(kind, 0.05, eps=1e-6, step=2), new_state(kind, table)
            options: dict[str, Any] = {
                "batch_size": batch,
                "weights": weights,
                "pooling": "mean",
                "rule": rule,
            }
            truth = table.double()
            exact = RowState(*(None if part is None else part.double() for part in state))
            update_rows_of_lookup(
                truth, exact, grad_out.double(), *lookup, **options, backend="reference"
            )
            with poisoned_outputs():
                update_rows_of_lookup(table, state, grad_out, *lookup, **options, backend="triton")
            yield Check(f"{kind}, {dtype}", norm_ratio(table, truth), tolerance)


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Row-wise Adagrad by us, by fbgemm, and through a sparse gradient."""
    for workload in (TINY,) if small else WORKLOADS:
        yield _case(draw(workload, device), device, is_timed=not small)


def _case(problem: Problem, device: torch.device, *, is_timed: bool) -> Case:
    work = problem.workload
    runs: dict[str, Run] = {"muxrec": _ours(problem, device)}
    absent: dict[str, str] = {}
    try:
        runs |= _fbgemm(problem, device)
    except Exception as error:  # noqa: BLE001 - a peer that cannot be built here is a fact to print
        absent |= {name: f"{type(error).__name__}: {error}" for name in (HASHING, GIVEN)}
    runs |= {SORTED: _given(problem, device)}
    if is_timed:  # Its backward is chosen by the device, and would be the reference here.
        runs |= {SPARSE: _sparse(problem, device)}
    found = [rows_of(problem, inputs)[0] for inputs in problem.sets]
    lookups = sum(rows.numel() for rows in found) // len(found)
    used = sum(rows.unique().numel() for rows in found) // len(found)
    # Sort, gradient vectors; of each row in use its numbers twice and its state's two sectors.
    row_bytes = work.width * work.dtype.itemsize
    return Case(
        name=work.name,
        run=runs,
        bytes_moved=lookups * (64 + 4 * work.width) + used * (2 * row_bytes + 64),
        row_bytes=row_bytes,
        lookups=lookups,
        again=_again(problem),
        targets={HASHING: 1.0 if work.kind == "uniform" else 1.2},
        is_small=work.from_graph,
        absent=absent,
        peak_bytes=True,
        agreement=1e-2 if work.dtype is FP16 else 1e-4,
    )


def _shown(problem: Problem, table: Tensor) -> Tensor:
    rows, _ = rows_of(problem, problem.sets[0])
    return table[rows[:: max(1, rows.numel() // SHOWN)]].float()


def _update(problem: Problem, table: Tensor, state: RowState, inputs: Inputs) -> None:
    update_rows_of_lookup(
        table,
        state,
        inputs.grad_out,
        inputs.ids,
        inputs.offsets,
        problem.slots,
        problem.seeds,
        batch_size=problem.workload.batch,
        rule=RULE,
        backend="triton",
    )


def _run(problem: Problem, table: Tensor, call: Callable[[int], object]) -> Run:
    """A call that shows some rows the first time, when all tables began as zeros."""
    seen: list[int] = []

    def run(at: int) -> tuple[Tensor, ...]:
        call(at)
        if seen:
            return ()
        seen.append(at)
        return (_shown(problem, table),)

    return run


def _ours(problem: Problem, device: torch.device) -> Run:
    table = new_table(problem, device)
    state = new_state(RULE.kind, table)
    return _run(problem, table, lambda at: _update(problem, table, state, problem.sets[at]))


def _again(problem: Problem) -> Callable[[], object]:
    """One update of a small table from zeros: the same rows collide more often."""
    work, inputs = problem.workload, problem.sets[0]

    def again() -> tuple[Tensor, ...]:
        table = inputs.grad_out.new_zeros(min(work.rows, 4096), work.width).to(work.dtype)
        state = new_state(RULE.kind, table)
        _update(problem, table, state, inputs)
        assert state.first is not None
        return table, state.first

    return again


def _given(problem: Problem, device: torch.device) -> Run:
    """Ours without the hashing: rows and gradient vectors of all lookups are there."""
    table = new_table(problem, device)
    state, slots = new_state(RULE.kind, table), problem.seeds.numel()
    batch, width = problem.workload.batch, problem.workload.width
    lists = []
    for inputs in problem.sets:
        rows, offsets = rows_of(problem, inputs)
        bags = torch.repeat_interleave(offsets.diff())
        lists.append((rows.int(), (bags % batch * slots + bags // batch).int()))

    def call(at: int) -> None:
        (rows, sources), grad = lists[at], problem.sets[at].grad_out.view(-1, width)
        update_rows(table, state, rows, sources, grad, rule=RULE, backend="triton")

    return _run(problem, table, call)


def _sparse(problem: Problem, device: torch.device) -> Run:
    """The lookup's own sparse gradient, then index operations on the rows."""
    table = new_table(problem, device).requires_grad_()
    momentum = torch.zeros(table.shape[0], device=device)
    outs = [
        multiplexed_lookup(
            table,
            inputs.ids,
            inputs.offsets,
            problem.slot_features,
            problem.seeds,
            batch_size=problem.workload.batch,
        )
        for inputs in problem.sets
    ]

    @torch.no_grad()
    def call(at: int) -> None:
        grad_out = problem.sets[at].grad_out
        (gradient,) = torch.autograd.grad(outs[at], table, grad_out, retain_graph=True)
        rows, values = gradient.indices()[0], gradient.values().float()
        sums = momentum[rows] + values.square().mean(dim=1)
        momentum[rows] = sums
        steps = values * (-RULE.lr / (sums.sqrt() + RULE.eps))[:, None]
        table.detach().index_add_(0, rows, steps.to(table.dtype))

    return _run(problem, table.detach(), call)


def _fbgemm(problem: Problem, device: torch.device) -> dict[str, Run]:
    """Fbgemm's table-batched embedding: one table, a feature for each slot."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    from muxrec_kernels.row_update import launch, triton_kernel

    work, is_cuda = problem.workload, device.type == "cuda"
    place = EmbeddingLocation.DEVICE if is_cuda else EmbeddingLocation.HOST
    compute = ComputeDevice.CUDA if is_cuda else ComputeDevice.CPU
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(work.rows, work.width, place, compute)],
        feature_table_map=[0] * problem.seeds.numel(),
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RULE.lr,
        eps=RULE.eps,
        weights_precision=SparseType.FP16 if work.dtype is FP16 else SparseType.FP32,
        stochastic_rounding=work.dtype is FP16,
        device=device if is_cuda else None,
    )
    weight = tables.split_embedding_weights()[0]
    weight.zero_()
    outs = [tables(*rows_of(problem, inputs)) for inputs in problem.sets]

    def backward(at: int) -> None:
        outs[at].backward(problem.sets[at].grad_out, retain_graph=True)

    def hash_first(at: int) -> None:
        inputs = problem.sets[at]
        launch.hash_lookups(
            triton_kernel, inputs.ids, inputs.offsets, problem.slots, problem.seeds,
            rows=work.rows, batch_size=work.batch, weights=None, pooling="sum",
        ).keys.long()  # fmt: skip
        backward(at)

    shown = _run(problem, weight, hash_first)
    # Both update one table, so only the first one's rows are compared.
    return {HASHING: shown, GIVEN: backward}
