"""A map that adds two reads of single ids and notes how large the ids' gradients were."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from muxrec.tables.methods.hot_keys import HotKeys
from muxrec.tables.processes import gather_counts, gather_uneven

BITS = 40
"""Norms are added as integers below ``2 ** BITS``: their sum is the same in every order, so that
one process and many, which decide by it, decide alike."""
NOTHING = -10_000
"""Exponent of a process without gradients."""


class OwnOrShared(nn.Module):
    """Adds an id's own row and its shared one; every id reads one of the two.

    Args:
        keys: Who owns a row.
        width: Numbers per row.
    """

    def __init__(self, keys: HotKeys, width: int) -> None:
        super().__init__()
        self.keys, self.width = keys, width
        self._norms: list[tuple[Tensor, Tensor]] = []

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows of single ids ``[N, 2 * width]`` to their vectors ``[N, width]``."""
        vectors = rows[:, : self.width] + rows[:, self.width :]
        if self.training and vectors.requires_grad:
            vectors.register_hook(partial(self._note, ids))
        return vectors

    def _note(self, ids: Tensor, gradient: Tensor) -> None:
        self._norms.append((ids, gradient.norm(dim=1).double()))

    def take_scores(self) -> tuple[Tensor, Tensor]:
        """Ids of the backwards since the last call, over all processes, and their scores.

        An id's score is the sum of its gradients' norms divided by the mean norm of a read; all
        processes call this alike and get the same.

        Returns:
            Distinct ids, rising, int64 ``[U]``, and float32 ``[U]``.
        """
        device = self.keys.keys.device
        parts = [(torch.empty(0, dtype=torch.int64), torch.empty(0)), *self._norms]
        ids, norms = (torch.cat([part[at].to(device) for part in parts]) for at in (0, 1))
        self._norms = []
        # What is not finite would be lost in a sum; the loss is looked at elsewhere.
        norms = norms.double().nan_to_num(nan=0.0, posinf=0.0)
        largest = float(norms.max()) if len(norms) else 0.0
        exponent = math.frexp(largest)[1] if largest else NOTHING
        exponent = max(gather_counts(exponent, device))
        if exponent == NOTHING:
            return ids[:0], norms[:0].float()
        units = torch.ldexp(norms, torch.tensor(BITS - exponent, device=device)).long()
        every, sums, reads = _over_processes(ids, units)
        return every, (sums.double() * (reads / float(sums.sum()))).float()


def _over_processes(ids: Tensor, units: Tensor) -> tuple[Tensor, Tensor, int]:
    """Distinct ids of all processes, the sum of each one's units, and how many there were."""
    reads, device = sum(gather_counts(len(ids), ids.device)), ids.device
    ids, units = _summed(ids, units)
    counts = gather_counts(len(ids), device)
    if len(counts) > 1:
        every = torch.cat(gather_uneven(ids, counts))
        ids, units = _summed(every, torch.cat(gather_uneven(units, counts)))
    return ids, units, reads


def _summed(ids: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    distinct, places = ids.unique(return_inverse=True)
    return distinct, units.new_zeros(len(distinct)).index_add_(0, places, units)
