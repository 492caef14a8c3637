"""What processes that train together tell each other about tables, beyond what TorchRec does.

Every function is a collective: all processes call it alike. In one process each returns what it
was given.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from muxrec.tables.processes import gather_counts, gather_uneven, this_rank, world_size


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


def largest(value: int, device: torch.device) -> int:
    """The largest ``value`` of all processes."""
    return value if world_size() == 1 else max(gather_counts(value, device))


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
