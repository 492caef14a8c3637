"""One worker process: loads the bundle at startup, answers, follows its source, stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

from muxrec.errors import BundleError, MuxrecError
from muxrec.log import event, install_handler
from muxrec_serving.answering.service import Service
from muxrec_serving.answering.state import load_state
from muxrec_serving.config import ServeConfig
from muxrec_serving.following.admin import AdminServer
from muxrec_serving.following.follower import Follower
from muxrec_serving.following.origin import read_origin
from muxrec_serving.following.sources import build_source
from muxrec_serving.live.journal import Journal
from muxrec_serving.web.app import build_app
from muxrec_serving.web.front import Front, Receive, Scope, Send

log = logging.getLogger("muxrec_serving.process")
LOOK_S = 0.02
SEVERAL_WORKERS = "live writes need one worker: start the server with --workers 1"


class Worker:
    """The ASGI application of one process."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._front: Front | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection event, or live through startup and shutdown."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._front is not None:
            await self._front(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            service = await asyncio.to_thread(_load, self._config)
            self._front = Front(service, build_app(service), access_log=self._config.access_log)
            follower = Follower(service, build_source(self._config), self._config)
            admin = self._start_admin(follower)
        except (MuxrecError, OSError) as error:
            log.error(event("start_failed", why=error))
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        loop = asyncio.get_running_loop()
        following = loop.create_task(follower.run())
        loop.add_signal_handler(signal.SIGUSR1, service.set_ready, False)
        # Ctrl-C reaches the whole process group; the supervisor drains and then ends its workers.
        loop.add_signal_handler(signal.SIGINT, log.debug, "interrupt left to the supervisor")
        service.set_ready(True)
        await send({"type": "lifespan.startup.complete"})
        announcing = loop.create_task(self._announce())
        await receive()
        service.set_ready(False)
        for task in (announcing, following):
            task.cancel()
        await asyncio.gather(announcing, following, return_exceptions=True)
        if admin is not None:
            admin.close()
        service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _announce(self) -> None:
        """Log that the port is open, once it is: the listener starts after the startup event."""
        host, port = self._config.host, self._config.port
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(local, port)
                writer.close()
                break
            await asyncio.sleep(LOOK_S)
        log.info(event("listening", address=f"http://{host}:{port}", worker=os.getpid()))

    def _start_admin(self, follower: Follower) -> AdminServer | None:
        port = self._config.admin_port
        return None if port is None else AdminServer(follower, port, asyncio.get_running_loop())


def load_worker(config: ServeConfig) -> Worker:
    """The application of a fresh worker process."""
    install_handler(level=int(os.environ.get("MUXREC_LOG_LEVEL", logging.INFO)))
    return Worker(config)


def _load(config: ServeConfig) -> Service:
    origin = read_origin(config.served_file)
    if origin is None:
        raise BundleError(f"{config.served_file} is missing: start the server again")
    # Probed by the supervisor or before the last swap; the files are verified again all the same.
    state = load_state(origin, probe=False)
    journal = Journal.open(config.journal) if config.journal else None
    return Service(
        state, journal=journal, read_only=SEVERAL_WORKERS if config.workers > 1 else None
    )
