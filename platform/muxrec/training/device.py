"""Where a training runs and in which precision."""

from __future__ import annotations

import os

import torch

from muxrec.errors import TrainingError
from muxrec.recipe.model import Train


def pick_device(train: Train) -> torch.device:
    """The device of ``train.device``; one GPU per process under torchrun.

    Raises:
        TrainingError: ``cuda`` was asked for and torch sees no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if train.device == "cuda" and not has_gpu:
        raise TrainingError("train.device is cuda but torch sees no GPU: use auto or cpu")
    if train.device == "cpu" or not has_gpu:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def autocast(train: Train, device: torch.device) -> torch.autocast:
    """The forward pass's precision: bf16 where asked for, or where a GPU has it and ``auto``."""
    is_auto = train.precision == "auto" and device.type == "cuda"
    is_on = train.precision == "bf16" or (is_auto and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_on)
