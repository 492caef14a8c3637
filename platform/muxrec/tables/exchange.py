"""What processes that train together tell each other about tables, beyond what TorchRec does.

Every function is a collective: all processes call it alike. In one process each returns what it
was given.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from muxrec.tables.addressing import RowBags


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def this_rank() -> int:
    """Number of this process among them; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_gradients(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over all processes of the gradients of some rows, the same in every process.

    Nothing of the table's size is made: what is exchanged are the rows in use, filled up to the
    largest process's number of them. The parts are added in the order of the ranks.

    Args:
        rows: Rows with a gradient here, distinct, int64 ``[U]``; may be empty.
        values: Their gradients, float32 ``[U, d]``.

    Returns:
        The rows that have a gradient in any process, rising, int64 ``[V]``, and the sum of their
        gradients divided by the number of processes, ``[V, d]``.
    """
    if world_size() == 1:
        return rows, values
    counts = gather_counts(rows.shape[0], rows.device)
    every = torch.sparse_coo_tensor(
        torch.cat(gather_uneven(rows, counts))[None],
        torch.cat(gather_uneven(values, counts)),
        check_invariants=False,
    ).coalesce()
    return every.indices()[0], every.values().div_(world_size())


def gather_counts(count: int, device: torch.device) -> list[int]:
    """Every process's ``count``, in the order of the ranks."""
    if world_size() == 1:
        return [count]
    found = torch.zeros(world_size(), dtype=torch.int64, device=device)
    found[this_rank()] = count
    dist.all_reduce(found)
    return found.tolist()


def largest(value: int, device: torch.device) -> int:
    """The largest ``value`` of all processes."""
    return value if world_size() == 1 else max(gather_counts(value, device))


def gather_uneven(values: Tensor, counts: list[int]) -> list[Tensor]:
    """Every process's ``values``, ``[counts[rank], ...]``, in the order of the ranks.

    gloo gathers equal shapes only, so they are filled up to the largest.
    """
    if len(counts) == 1 or not any(counts):
        return [values for _ in counts]
    filled = values.new_zeros(max(counts), *values.shape[1:])
    filled[: values.shape[0]] = values
    parts = [torch.empty_like(filled) for _ in counts]
    dist.all_gather(parts, filled)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def gather_bags(bags: RowBags) -> RowBags:
    """The bags of all processes, one process after another; all have the same number of bags."""
    lengths = bags.offsets.diff()
    has_weights = max(gather_counts(int(bags.weights is not None), bags.rows.device))
    counts = gather_counts(bags.rows.shape[0], bags.rows.device)
    found = torch.cat(gather_uneven(lengths, [lengths.shape[0]] * world_size()))
    weights = None
    if has_weights:
        own = torch.ones_like(bags.rows, dtype=torch.float32)
        own = own if bags.weights is None else bags.weights.float()
        weights = torch.cat(gather_uneven(own, counts))
    offsets = torch.cat([found.new_zeros(1), found.cumsum(0)])
    return RowBags(torch.cat(gather_uneven(bags.rows, counts)), offsets, weights)


def swap_columns(columns: Tensor, widths: list[int]) -> Tensor:
    """From these columns of everybody's vectors to all columns of this process's vectors.

    Args:
        columns: ``[W * N, widths[rank]]``: for each of the W processes, its N vectors' columns that
            this process makes. Its gradient goes the way back.
        widths: Columns made by each process, each at least 1.

    Returns:
        ``[N, sum(widths)]``.
    """
    return cast(Tensor, _SwapColumns.apply(columns, widths))


class _SwapColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, widths: list[int]) -> Tensor:
        ctx.widths = widths
        count = columns.shape[0] // len(widths)
        received = columns.new_empty(count * sum(widths))
        sizes = [count * width for width in widths]
        dist.all_to_all_single(received, columns.contiguous().view(-1), output_split_sizes=sizes)
        parts = received.split(sizes)
        return torch.cat([p.view(count, w) for p, w in zip(parts, widths, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        widths, gradient = ctx.widths, gradients[0]
        count = gradient.shape[0]
        sent = torch.cat([part.reshape(-1) for part in gradient.split(widths, dim=1)])
        mine = widths[this_rank()]
        received = gradient.new_empty(len(widths) * count * mine)
        sizes = [count * width for width in widths]
        dist.all_to_all_single(received, sent, input_split_sizes=sizes)
        return received.view(-1, mine), None
