"""Where bundles are offered: a folder, or an alias of the model registry."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from muxrec.bundle.probe import probe_bundle
from muxrec.bundle.reader import resolve_current
from muxrec.errors import BundleError, MuxrecError, RegistryError
from muxrec.log import event
from muxrec.manifest import MANIFEST, manifest_digest
from muxrec_serving.config import ServeConfig
from muxrec_serving.following.origin import Origin

log = logging.getLogger("muxrec_serving.following")


@dataclass(frozen=True)
class Offer:
    """A bundle that a source points at now.

    Attributes:
        key: Identity of the offer; another key is another bundle or version.
        version: Version of the model; None for a folder.
        digest: Digest that the source promises; None when it promises none.
    """

    key: str
    version: str | None = None
    digest: str | None = None


class BundleSource(Protocol):
    """Something that points at one bundle at a time."""

    def poll(self) -> Offer:
        """What is offered now. Raises MuxrecError when it cannot tell."""
        ...

    def fetch(self, offer: Offer) -> Origin:
        """The offered bundle on this machine. Raises MuxrecError when it cannot be had."""
        ...

    def accepted(self, origin: Origin) -> None:
        """Told when a fetched bundle was verified, probed and is served."""
        ...

    def fallback(self) -> Origin | None:
        """The newest verified bundle that is here already, for when ``poll`` fails at start."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A bundle folder, or a folder of bundles with a ``CURRENT`` pointer.

    Attributes:
        path: The folder.
    """

    path: Path

    def poll(self) -> Offer:
        """The bundle that the folder is or points at.

        Raises:
            BundleError: There is none.
        """
        folder = self._folder()
        digest = manifest_digest(folder)
        return Offer(key=f"{folder.name}:{digest}", digest=digest)

    def fetch(self, offer: Offer) -> Origin:  # noqa: ARG002 - nothing to download
        """The folder itself."""
        return Origin(self._folder())

    def accepted(self, origin: Origin) -> None:
        """Nothing to remember."""

    def fallback(self) -> Origin | None:
        """None: a folder is always here or not at all."""
        return None

    def _folder(self) -> Path:
        if not self.path.is_dir():
            raise BundleError(f"{self.path} is no folder: give a bundle, or the folder of bundles")
        folder = resolve_current(self.path)
        if not (folder / MANIFEST).is_file():
            raise BundleError(
                f"{folder} holds no {MANIFEST}: it is no finished bundle, and no folder of bundles "
                "with a CURRENT file"
            )
        return folder.resolve()


def build_source(config: ServeConfig) -> BundleSource:
    """The source that ``config`` names."""
    if config.bundle is not None:
        return FolderSource(config.bundle)
    from muxrec_serving.following.registry import RegistrySource

    return RegistrySource(
        model=config.model or "",
        alias=config.alias,
        uri=config.registry,
        cache=config.cache,
    )


def check_allowed(folder: Path, allowed: tuple[str, ...]) -> None:
    """Refuse a bundle that is not on the list; an empty list allows all.

    Raises:
        BundleError: Its digest begins with none of ``allowed``.
    """
    digest = manifest_digest(folder)
    if allowed and not any(digest.startswith(known) for known in allowed):
        raise BundleError(f"{folder}: digest {digest} is not on the allow-list: refused")


def first_origin(config: ServeConfig) -> Origin:
    """The bundle to begin with, verified and probed.

    Where the offered one cannot be had or is bad, the newest verified copy in the cache serves.

    Raises:
        MuxrecError: There is no usable bundle.
    """
    source = build_source(config)
    try:
        origin = source.fetch(source.poll())
        _check(origin, config)
    except MuxrecError as error:
        origin = source.fallback()
        if origin is None:
            raise
        kind = "registry_away" if isinstance(error, RegistryError) else "bundle_refused"
        log.warning(event(kind, why=error, serving=origin.folder.name, version=origin.version))
        _check(origin, config)
    source.accepted(origin)
    return origin


def _check(origin: Origin, config: ServeConfig) -> None:
    check_allowed(origin.folder, config.allowed)
    probe_bundle(origin.folder)
