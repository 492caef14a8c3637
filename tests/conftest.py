"""What every test stands on: quiet libraries, one thread, no network, the public data."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from pathlib import Path
from typing import Any

# Triton reads its interpreter switch when a kernel is decorated, and OpenMP its threads when the
# library is loaded: both before any test module imports anything.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from muxrec.cli import QUIET_ENVIRONMENT

for _name, _value in QUIET_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import pytest  # noqa: E402 - after the environment is set
from hypothesis import HealthCheck, settings  # noqa: E402 - after the environment is set

# A deadline per example would measure how busy the machine is. What CI says depends on the change
# alone: it takes the same examples every time, and new ones are looked for everywhere else.
settings.register_profile(
    "muxrec",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("muxrec")

LOGGERS = ("muxrec", "muxrec_jobs", "muxrec_serving", "muxrec_kernels")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the public data sets: MUXREC_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MUXREC_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}: set MUXREC_DATA")
    return folder


@pytest.fixture(autouse=True)
def _own_log_levels() -> None:
    """Every test starts with loggers as a new process has them.

    Commands set levels for the whole process, and fixtures that outlive a test run commands too.
    """
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections and name look-ups that would leave this machine."""
    connect, connect_ex, look_up = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def check(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check_local(address[0] if isinstance(address, tuple) else address)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(self, address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *rest: Any, **options: Any) -> Any:
        _check_local(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


def _check_local(host: object) -> None:
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text)
        is_local = address.is_loopback or address.is_unspecified
    except ValueError:
        is_local = host is None or text in ("", "localhost", socket.gethostname())
    if not is_local:
        raise RuntimeError(f"a test tried to reach {text}: tests use no network")
