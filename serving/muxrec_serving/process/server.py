"""The server process: checks first, then granian with workers that are respawned when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from muxrec.errors import MuxrecError
from muxrec_serving.config import ServeConfig
from muxrec_serving.limits import HEADER_TIMEOUT_S, MAX_HEADER_BYTES

STOP_TIMEOUT_S = 10
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""A request's products are small: threads for them cost more than they save."""
BACKLOG = 1024
MAX_IN_FLIGHT = 512


class DrainingServer(MPServer):
    """Granian that turns readiness off before it stops to listen."""

    def __init__(self, *args: Any, drain_s: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._drain_s = drain_s
        self._is_stopping = False

    def signal_handler_interrupt(self, *args: Any, **settings: Any) -> None:
        """Tell the workers to say not ready and stop ``drain_s`` later; a second signal at once."""
        if self._is_stopping or self._drain_s <= 0:
            super().signal_handler_interrupt(*args, **settings)
            return
        # Set now, so that a worker which ends meanwhile (Ctrl-C reaches all) is not respawned.
        self._is_stopping = self.interrupt_signal = True
        for worker in self.wrks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.inner.pid, signal.SIGUSR1)
        stop = threading.Timer(self._drain_s, super().signal_handler_interrupt)
        stop.daemon = True
        stop.start()


def run_server(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        MuxrecError: A port is in use, or there is no usable bundle. Nothing was started.
        SystemExit: Workers die again and again (1).
    """
    check_port(config.host, config.port, option="--port")
    if config.admin_port is not None:
        check_port("127.0.0.1", config.admin_port, option="--admin-port")
    # Workers must not inherit the threads and locks of a process that has lived already.
    multiprocessing.set_start_method("spawn", force=True)
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    with tempfile.TemporaryDirectory(prefix="muxrec-serve-") as runtime:
        config = replace(config, runtime=Path(runtime))
        if config.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = runtime
        _prepare_apart(config)
        _server(config).serve(target_loader=partial(_load_worker, config), wrap_loader=False)


def check_port(host: str, port: int, *, option: str) -> None:
    """Refuse a port that cannot be listened on.

    Raises:
        MuxrecError: It is in use, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise MuxrecError(
                f"cannot listen on {host}:{port}: {error.strerror}: stop what uses it or choose "
                f"another {option}"
            ) from error


def _prepare_apart(config: ServeConfig) -> None:
    """Find, verify and probe the first bundle in a process that is gone afterwards."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            pool.submit(_prepare, config).result()
        except BrokenProcessPool as error:
            raise MuxrecError("the process that prepares the first bundle was killed") from error


def _prepare(config: ServeConfig) -> None:
    from muxrec.log import install_handler
    from muxrec_serving.following.origin import write_origin
    from muxrec_serving.following.sources import first_origin

    install_handler()
    write_origin(config.served_file, first_origin(config))


def _load_worker(config: ServeConfig) -> Any:
    from muxrec_serving.process.worker import load_worker

    return load_worker(config)


def _server(config: ServeConfig) -> DrainingServer:
    return DrainingServer(
        "muxrec_serving.process.worker:load_worker",
        drain_s=config.drain_s,
        address=config.host,
        port=config.port,
        interface=Interfaces.ASGI,
        workers=config.workers,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_IN_FLIGHT,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(HEADER_TIMEOUT_S * 1000),
            max_buffer_size=MAX_HEADER_BYTES,
        ),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        respawn_interval=0.0,
        workers_kill_timeout=STOP_TIMEOUT_S,
    )
