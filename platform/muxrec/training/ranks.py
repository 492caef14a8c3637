"""One process or many: who this process is, and how the dense part is kept equal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among its peers.

    Attributes:
        rank: Number of this process, from 0.
        world_size: How many there are.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here; nothing for one."""
        if self.world_size > 1:
            dist.barrier()

    def from_first(self, value: Value) -> Value:
        """The first process's ``value``, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def largest(self, value: int) -> int:
        """The largest ``value`` of all processes."""
        if self.world_size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        box = torch.tensor(value, device=device)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one flat exchange.

        A parameter without a gradient here may have one elsewhere and counts as 0.
        """
        if self.world_size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        flat = torch.cat([_gradient(p).reshape(-1) for p in trained])
        dist.all_reduce(flat)
        flat /= self.world_size
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, connected; one process without it.

    Args:
        device: ``cuda`` exchanges by NCCL, anything else by gloo.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()
