"""Which implementation of an operation runs: chosen by device or forced, never swapped silently."""

from __future__ import annotations

import importlib.util
import logging
import os
from enum import Enum
from functools import cache

import torch

logger = logging.getLogger("muxrec.kernels")

FORCE_VARIABLE = "MUXREC_BACKEND"


class Backend(Enum):
    """An implementation of every operation."""

    REFERENCE = "reference"
    TRITON = "triton"


class BackendError(RuntimeError):
    """A forced backend cannot run here."""


def choose_backend(device: torch.device, *, forced: Backend | str | None = None) -> Backend:
    """The backend that runs on ``device``: Triton on CUDA, the torch reference elsewhere.

    Args:
        device: Where the operation's tensors live.
        forced: A backend to take instead; None reads the variable ``MUXREC_BACKEND``.

    Raises:
        BackendError: The forced backend is unknown or cannot run on ``device``.
    """
    wanted = forced or os.environ.get(FORCE_VARIABLE)
    picked = _parse(wanted) if wanted else _automatic(device.type)
    if picked is Backend.TRITON and (reason := why_no_triton(device.type)):
        raise BackendError(f"backend triton was asked for on {device} but {reason}")
    _say(picked, device.type, bool(wanted))
    return picked


def why_no_triton(device_type: str) -> str | None:
    """Why Triton kernels cannot run on such a device, or None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it has wheels for Linux only)"
    if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton needs a CUDA device, or TRITON_INTERPRET=1 set before the first import"
    return None


def _parse(wanted: Backend | str) -> Backend:
    try:
        return Backend(wanted)
    except ValueError:
        known = ", ".join(backend.value for backend in Backend)
        raise BackendError(f"backend must be one of {known}, got {wanted!r}") from None


def _automatic(device_type: str) -> Backend:
    return Backend.TRITON if device_type == "cuda" else Backend.REFERENCE


@cache
def _say(picked: Backend, device_type: str, forced: bool) -> None:
    logger.info("backend=%s device=%s forced=%s", picked.value, device_type, forced)
