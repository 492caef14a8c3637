"""How one server is run. Light on purpose: the supervising process imports nothing heavier."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServeConfig:
    """Everything that ``muxrec serve`` was told.

    Attributes:
        bundle: A bundle, or a folder of bundles whose ``CURRENT`` is followed; None for a model.
        model: Registered model; None for a folder.
        alias: Alias that is followed.
        registry: URI of the MLflow registry.
        cache: Folder of downloaded bundles.
        host: Address to listen on.
        port: Port to listen on.
        workers: Worker processes.
        admin_port: Loopback port of the administration; None for none.
        journal: File of live writes; None keeps them in memory only.
        poll_s: Seconds between looks at the alias or at ``CURRENT``.
        settle_s: Seconds that an offer must stay the same before it is loaded.
        drain_s: Seconds between readiness off and the end of listening when stopping.
        allowed: Bundle digests that may be served, full or first digits; empty allows all.
        access_log: Log every request, not only refused and failed ones.
        runtime: Folder for what workers tell a respawned one; made by the supervisor.
    """

    bundle: Path | None = None
    model: str | None = None
    alias: str = "champion"
    registry: str | None = None
    cache: Path = Path()
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    admin_port: int | None = None
    journal: Path | None = None
    poll_s: float = 5.0
    settle_s: float = 1.0
    drain_s: float = 0.5
    allowed: tuple[str, ...] = ()
    access_log: bool = False
    runtime: Path = Path()

    @property
    def served_file(self) -> Path:
        """Names the bundle that was last served well; a respawned worker begins with it."""
        return self.runtime / "served.json"


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/muxrec`` or ``~/.cache/muxrec``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muxrec"
