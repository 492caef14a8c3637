"""Hash seeds as tensors, made once per device."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def seeds_on(device: torch.device, seeds: tuple[int, ...]) -> Tensor:
    """The signed 64-bit ``seeds``, int64 ``[S]`` on ``device``; not to be written to.

    A map holds its seeds as numbers, since a buffer would be counted as its memory. Copying them to
    a GPU in every step would make the host wait.
    """
    # A tensor made under inference mode could not take part in a later training step.
    with torch.inference_mode(False):
        return torch.tensor(seeds, dtype=torch.int64, device=device)
