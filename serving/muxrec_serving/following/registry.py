"""The MLflow registry as a source of bundles, and the only module here that imports mlflow.

Alias -> version -> one download into a cache where folders are named by their digest. MLflow's
defaults block a client for 248 s when the server is down, so retries and timeouts are short; a copy
that was served once keeps the service starting while the registry is away.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muxrec.bundle.format import DIGEST_CHARACTERS, FORMAT_VERSION, KIND
from muxrec.errors import BundleError, RegistryError
from muxrec.log import event
from muxrec.manifest import MANIFEST, manifest_digest, verify
from muxrec_serving.following.origin import Origin, read_origin, write_origin
from muxrec_serving.following.sources import Offer

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("muxrec_serving.following")

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
DIGEST_TAG = "muxrec.bundle_digest"


@dataclass(frozen=True)
class RegistrySource:
    """An alias of a registered model.

    Attributes:
        model: Registered model.
        alias: Alias that is followed.
        uri: Registry; None for what MLflow's own environment says.
        cache: Folder of downloads and of the pointers to what was served last.
    """

    model: str
    alias: str
    uri: str | None
    cache: Path

    def poll(self) -> Offer:
        """The version that the alias points at.

        Raises:
            RegistryError: The registry is away or knows no such model or alias.
        """
        try:
            version = self._client().get_model_version_by_alias(self.model, self.alias)
        except Exception as error:
            raise self._failure(error) from error
        digest = version.tags.get(DIGEST_TAG)
        return Offer(key=f"{version.version}:{digest}", version=str(version.version), digest=digest)

    def fetch(self, offer: Offer) -> Origin:
        """The version's bundle in the cache, downloaded at the first call only.

        Raises:
            RegistryError: The download failed.
            BundleError: The version holds no bundle, or another one than its tag promises.
        """
        if offer.digest is not None:
            held = self._folder(offer.digest)
            if _is_whole(held):
                return self._origin(held, offer)
        self._bundles.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._bundles, prefix=".download-") as scratch:
            found = self._download(offer, Path(scratch))
            digest = manifest_digest(found)
            if offer.digest not in (None, digest):
                raise BundleError(
                    f"{self.model} version {offer.version} is tagged {offer.digest}, its bundle "
                    f"has digest {digest}: refused"
                )
            final = self._folder(digest)
            if not _is_whole(final):
                shutil.rmtree(final, ignore_errors=True)
                found.rename(final)
        return self._origin(final, offer)

    def accepted(self, origin: Origin) -> None:
        """Remember the bundle as the newest good one of this alias."""
        write_origin(self._pointer, origin)

    def fallback(self) -> Origin | None:
        """The bundle that was accepted last, where it is still in the cache."""
        origin = read_origin(self._pointer)
        return origin if origin is not None and origin.folder.is_dir() else None

    @property
    def _bundles(self) -> Path:
        return self.cache / "bundles"

    @property
    def _pointer(self) -> Path:
        return self.cache / "models" / f"{self.model}@{self.alias}.json"

    def _folder(self, digest: str) -> Path:
        return self._bundles / digest[:DIGEST_CHARACTERS]

    def _origin(self, folder: Path, offer: Offer) -> Origin:
        return Origin(folder.resolve(), self.model, offer.version, self.alias)

    def _client(self) -> MlflowClient:
        for name, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _download(self, offer: Offer, scratch: Path) -> Path:
        """The bundle folder among the version's files, below ``scratch``."""
        try:
            client = self._client()
            uri = client.get_model_version_download_uri(self.model, offer.version or "")
            from mlflow.artifacts import download_artifacts

            download_artifacts(
                artifact_uri=uri,
                dst_path=str(scratch),
                tracking_uri=self.uri,
                registry_uri=self.uri,
            )
        except Exception as error:
            raise self._failure(error) from error
        found = sorted(scratch.rglob(MANIFEST))
        if len(found) != 1:
            raise BundleError(
                f"{self.model} version {offer.version} holds {len(found)} files called {MANIFEST}, "
                "expected the one of a bundle"
            )
        return found[0].parent

    def _failure(self, error: Exception) -> RegistryError:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        where = self.uri or "MLflow's default URI"
        return RegistryError(f"{self.model}@{self.alias} cannot be had from {where}: {said}")


def _is_whole(folder: Path) -> bool:
    """Whether a copy in the cache is still what was downloaded; a rotten one is fetched again."""
    if not folder.is_dir():
        return False
    try:
        verify(folder, kind=KIND, format_version=FORMAT_VERSION)
    except BundleError as error:
        log.warning(event("copy_damaged", folder=folder, why=error))
        return False
    return True
