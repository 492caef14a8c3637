"""The backend follows the device, or is forced; it is never swapped in silence."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from muxrec_kernels import dispatch
from muxrec_kernels.dispatch import Backend, BackendError, choose_backend
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUXREC_BACKEND", raising=False)
    dispatch._say.cache_clear()


def test_the_device_decides() -> None:
    assert choose_backend(CPU) is Backend.REFERENCE
    if dispatch.why_no_triton("cuda") is None:
        assert choose_backend(CUDA) is Backend.TRITON


def test_argument_goes_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton")
    assert choose_backend(CPU) is Backend.TRITON
    assert choose_backend(CPU, forced="reference") is Backend.REFERENCE


def test_a_forced_backend_that_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="triton was asked for on cpu but"):
        choose_backend(CPU, forced=Backend.TRITON)
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    table = torch.zeros(2, 4)
    ids = torch.tensor([1])
    with pytest.raises(BackendError, match="triton was asked for"):
        multiplexed_lookup(
            table, ids, torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([7]), batch_size=1
        )


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="one of reference, triton, got 'cuda'"):
        choose_backend(CPU, forced="cuda")


def test_without_triton_cuda_is_refused_and_not_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "why_no_triton", lambda device: "it is not installed")
    with pytest.raises(BackendError, match="not installed"):
        choose_backend(CUDA)


def test_the_choice_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="muxrec.kernels"):
        choose_backend(CPU)
        choose_backend(CPU)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["backend=reference device=cpu forced=False"]


def test_importing_the_kernels_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import muxrec_kernels.multiplexed_lookup, muxrec_kernels.dispatch\n"
        "import muxrec_kernels.xxhash64, muxrec_kernels.testing\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
