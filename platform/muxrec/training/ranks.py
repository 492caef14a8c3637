"""One process or many: who this process is, and how the dense part is kept equal."""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from muxrec.errors import RecipeError, TrainingError

Value = TypeVar("Value")

PEER_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for an exchange; the first one prepares the items while others wait."""
_LOST = ("gloo/transport", "ProcessGroup", "Connection closed by peer", "NCCL")


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

    When one of them ends, the others end with it, at the latest ``PEER_TIMEOUT`` after their next
    exchange; where the connection breaks, as it does when a process is killed, at once.

    Args:
        device: ``cuda`` exchanges by NCCL, anything else by gloo.

    Raises:
        TrainingError: Another process has ended, or torchrun stops this one because of it.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _told_to_stop():
        try:
            dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PEER_TIMEOUT)
            yield Ranks(dist.get_rank(), world_size)
        except BaseException as error:
            atexit.register(_leave, error)
            if isinstance(error, RuntimeError) and is_lost_peer(error):
                raise TrainingError(lost_peer(first_words(error))) from error
            raise
    dist.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an exchange failed, which it does when another process has ended."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST)


def first_words(error: RuntimeError) -> str:
    """The error without the place in the source where it was raised, one line."""
    text = " ".join(str(error).split())
    return re.sub(r"^\[[^\]]*\] ?", "", text).split(". ")[0].strip()


def lost_peer(reason: str) -> str:
    """What to tell the user when another process has ended."""
    rank, world_size = os.environ.get("RANK", "?"), os.environ.get("WORLD_SIZE", "?")
    return (
        f"process {rank} of {world_size} stops: another process of this training has ended "
        f"({reason}). Look for its own error above; what was saved is intact: start the same "
        f"command again with {world_size} processes to go on from the newest checkpoint"
    )


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM, by which torchrun stops the processes that are left, as an error with a message."""

    def stop(*_: object) -> None:
        raise TrainingError(lost_peer("torchrun sent SIGTERM"))

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        # This process ends and says why: a signal now would cut its line off.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)


def _leave(error: BaseException) -> None:
    """End the process without waiting for exchanges that nobody will answer.

    gloo's threads and TorchRec's references to their group keep the interpreter's own exit waiting
    for a peer that has gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    codes: dict[type[BaseException], int] = {RecipeError: 2, KeyboardInterrupt: 130}
    os._exit(codes.get(type(error), 1))
