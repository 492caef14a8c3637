"""Random numbers of a map in training that a checkpoint goes on with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muxrec.spec.hashing import hash_ids


class CountedDraws(nn.Module):
    """Generators, each a function of a seed and of how many there were before it.

    The count is a buffer, so a resumed training draws as if it had never stopped, and all ranks
    draw alike.

    Args:
        generator: Gives the seed.
    """

    count: Tensor

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        seed = generator.initial_seed()
        # A generator gives its seed back unsigned.
        self.seed = seed - 2**64 if seed >= 2**63 else seed
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        """The next generator, on the CPU."""
        number = int(self.count)
        self.count += 1
        return torch.Generator().manual_seed(int(hash_ids([number], self.seed)[0]))
