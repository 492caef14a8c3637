"""Follows a source: loads what it offers beside the old bundle, swaps, refuses what is bad."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from muxrec.errors import BundleError, MuxrecError
from muxrec.log import event
from muxrec_serving.answering.service import Service
from muxrec_serving.answering.state import ServingState, load_state
from muxrec_serving.config import ServeConfig
from muxrec_serving.following.origin import Origin, write_origin
from muxrec_serving.following.sources import BundleSource, Offer, check_allowed
from muxrec_serving.web.operations import version_of

log = logging.getLogger("muxrec_serving.following")
MAX_REFUSED = 1000


class Follower:
    """Keeps a service on the bundle that its source points at."""

    def __init__(self, service: Service, source: BundleSource, config: ServeConfig) -> None:
        self._service = service
        self._source = source
        self._config = config
        self._taken: str | None = None
        self._refused: dict[str, str] = {}
        self._previous: Origin | None = None
        self._pinned = False
        self._registry_fault: str | None = None
        self._working = asyncio.Lock()

    async def run(self) -> None:
        """Look at the source every ``poll_s`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._config.poll_s)
            async with self._working:
                # Asked under the lock: a rollback may have held it until now.
                if not self._pinned:
                    await self._look(settle_s=self._config.settle_s)

    async def reload(self) -> dict[str, Any]:
        """Take what is offered now, also when it was refused before; ends a rollback's pin."""
        async with self._working:
            self._pinned = False
            self._refused.clear()
            return {"result": await self._look(settle_s=0), **self.status()}

    async def rollback(self) -> dict[str, Any]:
        """Serve the bundle before the present one and stay on it until ``reload``."""
        async with self._working:
            if self._previous is None:
                return {"result": "nothing to roll back to", **self.status()}
            back = self._previous
            try:
                await self._take(back)
            except (MuxrecError, OSError) as error:
                self._note_refusal(f"rollback:{back.folder.name}", error)
                return {"result": "refused", **self.status()}
            self._pinned = True
            self._taken = None
            return {"result": "rolled back", **self.status()}

    def status(self) -> dict[str, Any]:
        """What is served, whether it is pinned, what was refused and why."""
        previous = self._previous.folder.name if self._previous else None
        return {
            **version_of(self._service),
            "pinned": self._pinned,
            "previous": previous,
            "refused": dict(self._refused),
            "source_fault": self._registry_fault,
        }

    async def _look(self, *, settle_s: float) -> str:
        """One look at the source; says what came of it."""
        offer = await self._poll()
        if offer is None:
            return "source away"
        if offer.key == self._taken or self._is_served(offer):
            self._taken = offer.key
            return "unchanged"
        if offer.key in self._refused:
            return "refused before"
        if settle_s:
            # An alias that flaps is followed once it stands still.
            await asyncio.sleep(settle_s)
            if await self._poll() != offer:
                return "unsettled"
        return await self._try(offer)

    async def _poll(self) -> Offer | None:
        try:
            offer = await asyncio.to_thread(self._source.poll)
        except (MuxrecError, OSError) as error:
            self._service.metrics.registry_errors.inc()
            if self._registry_fault is None:
                log.warning(event("source_away", why=error))
            self._registry_fault = str(error)
            return None
        if self._registry_fault is not None:
            log.info(event("source_back", offer=offer.key))
        self._registry_fault = None
        return offer

    def _is_served(self, offer: Offer) -> bool:
        state = self._service.view.state
        return offer.digest == state.bundle.digest and offer.version == state.origin.version

    async def _try(self, offer: Offer) -> str:
        try:
            origin = await asyncio.to_thread(self._source.fetch, offer)
            await self._take(origin)
        except BundleError as error:
            self._note_refusal(offer.key, error)
            return "refused"
        except (MuxrecError, OSError) as error:
            # A download that broke off may go well the next time.
            self._service.metrics.registry_errors.inc()
            log.warning(event("fetch_failed", offer=offer.key, why=error))
            return "fetch failed"
        self._taken = offer.key
        await asyncio.to_thread(self._source.accepted, origin)
        return "swapped"

    async def _take(self, origin: Origin) -> None:
        old = self._service.view.state
        state = await asyncio.to_thread(_load, origin, self._config.allowed)
        await self._service.swap(state)
        self._previous = old.origin
        await asyncio.to_thread(write_origin, self._config.served_file, origin)

    def _note_refusal(self, key: str, error: Exception) -> None:
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        self._refused[key] = str(error)
        self._service.metrics.refusals.labels(type(error).__name__).inc()
        served = self._service.view.state.digest
        log.error(event("bundle_refused", offer=key, why=error, still_serving=served))


def _load(origin: Origin, allowed: tuple[str, ...]) -> ServingState:
    check_allowed(origin.folder, allowed)
    return load_state(origin)
