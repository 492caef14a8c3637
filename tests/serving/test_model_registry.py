"""An alias of a real registry: downloaded once, followed, and survived when it is away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from muxrec.errors import BundleError, MuxrecError, RegistryError
from muxrec.recipe.model import Data, Recipe, Source, Tracking
from muxrec.spec.features import FeatureSpec
from muxrec.tracking.aliases import promote, rollback
from muxrec.tracking.registry import publish
from muxrec.tracking.server import connect, tracking_uri
from muxrec_serving.config import ServeConfig
from muxrec_serving.following.registry import DIGEST_TAG, RegistrySource
from muxrec_serving.following.sources import first_origin

ALIAS = "champion"
START_S = 120


def make_recipe(output: Path, uri: str | None = None) -> Recipe:
    features = (FeatureSpec("plot", "vector", ("plot",), "text", width=16),)
    data = Data(Source("generic"))
    return Recipe("shop", data, features, output=str(output), tracking=Tracking(uri=uri))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, bundles: list[Path]) -> Recipe:
    """A SQLite registry with two versions; ``champion`` is the first."""
    recipe = make_recipe(tmp_path_factory.mktemp("registry"))
    for bundle in bundles[:2]:
        publish(recipe, bundle)
    promote(recipe, "1")
    return recipe


@pytest.fixture
def recipe(published: Recipe) -> Iterator[Recipe]:
    yield published
    promote(published, "1")


@pytest.fixture
def config(recipe: Recipe, tmp_path: Path) -> ServeConfig:
    return ServeConfig(
        model="shop", alias=ALIAS, registry=tracking_uri(recipe), cache=tmp_path / "cache"
    )


def source_of(config: ServeConfig) -> RegistrySource:
    return RegistrySource(config.model or "", config.alias, config.registry, config.cache)


def away(config: ServeConfig, take_port) -> ServeConfig:
    return replace(config, registry=f"http://127.0.0.1:{take_port()}")


def test_the_alias_names_a_version_and_its_bundle_is_downloaded_once(config, bundles):
    source = source_of(config)
    offer = source.poll()
    assert offer.version == "1"
    origin = source.fetch(offer)
    assert origin.folder.name == bundles[0].name
    assert (origin.model, origin.version, origin.alias) == ("shop", "1", ALIAS)
    stamp = (origin.folder / "vectors.npy").stat().st_mtime_ns
    assert source.fetch(offer) == origin
    assert (origin.folder / "vectors.npy").stat().st_mtime_ns == stamp
    assert [path.name for path in (config.cache / "bundles").iterdir()] == [bundles[0].name]


def test_promote_and_rollback_change_the_offer(config, recipe):
    source = source_of(config)
    first = source.poll()
    promote(recipe, "2")
    second = source.poll()
    assert (first.version, second.version) == ("1", "2")
    assert first.key != second.key
    rollback(recipe)
    assert source.poll() == first


def test_an_unknown_model_or_alias_is_named(config):
    with pytest.raises(RegistryError, match="shop@nobody cannot be had"):
        source_of(replace(config, alias="nobody")).poll()
    with pytest.raises(RegistryError, match="nothing@champion cannot be had"):
        source_of(replace(config, model="nothing")).poll()


def test_a_version_with_another_bundle_than_tagged_is_refused(config, recipe):
    client = connect(recipe)
    version = client.get_model_version_by_alias("shop", ALIAS)
    client.set_model_version_tag("shop", version.version, DIGEST_TAG, "0" * 64)
    try:
        source = source_of(config)
        with pytest.raises(BundleError, match="is tagged 0000"):
            source.fetch(source.poll())
        assert list((config.cache / "bundles").iterdir()) == []
    finally:
        client.set_model_version_tag("shop", version.version, DIGEST_TAG, version.tags[DIGEST_TAG])


def test_a_registry_that_is_away_at_start_gives_way_to_the_cache(config, take_port, bundles):
    served = first_origin(config)
    again = first_origin(away(config, take_port))
    assert again == served
    assert again.folder.name == bundles[0].name


def test_a_registry_that_is_away_without_a_cache_is_one_error(config, take_port):
    with pytest.raises(RegistryError, match="shop@champion cannot be had from http://127"):
        first_origin(away(config, take_port))


def test_a_damaged_copy_in_the_cache_is_not_served(config, take_port):
    origin = first_origin(config)
    with (origin.folder / "vectors.npy").open("r+b") as stream:
        stream.seek(300)
        stream.write(b"\xff")
    with pytest.raises(BundleError, match=r"vectors\.npy was changed"):
        first_origin(away(config, take_port))


def test_a_damaged_copy_is_downloaded_again_while_the_registry_is_there(config):
    origin = first_origin(config)
    (origin.folder / "index.hnsw").write_bytes(b"rot")
    assert first_origin(config) == origin
    assert (origin.folder / "index.hnsw").stat().st_size > 1000


def test_a_bad_champion_at_start_gives_way_to_the_last_good_one(config, recipe, bundles):
    first_origin(config)
    promote(recipe, "2")
    refused = replace(config, allowed=(bundles[0].name,))
    assert first_origin(refused).folder.name == bundles[0].name
    with pytest.raises(MuxrecError, match="not on the allow-list"):
        first_origin(replace(refused, cache=config.cache / "empty"))


def test_the_server_follows_the_alias_and_starts_without_the_registry(
    serving, recipe, bundles, tmp_path, take_port
):
    arguments = (
        "--model",
        "shop@champion",
        "--registry",
        tracking_uri(recipe),
        "--cache",
        str(tmp_path / "cache"),
        "--poll-s",
        "0.2",
        "--settle-s",
        "0",
    )
    with serving(*arguments) as server:
        version = httpx.get(f"{server.base}/version").json()
        assert (version["model"], version["alias"], version["model_version"]) == (
            "shop",
            ALIAS,
            "1",
        )
        promote(recipe, "2")
        server.wait_for(f"serving bundle={bundles[1].name} model=shop version=2")
        rollback(recipe)
        server.wait_for(f"serving bundle={bundles[0].name} model=shop version=1")
    with serving(
        *arguments[:2], "--registry", f"http://127.0.0.1:{take_port()}", *arguments[4:6]
    ) as server:
        assert any(" registry_away " in line for line in server.log)
        assert (
            httpx.get(f"{server.base}/v1/items/item-1/similar").json()["bundle"] == bundles[0].name
        )


def _wait_until_healthy(uri: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the MLflow server answers; it accepts connections later than it says so."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert server.poll() is None, "the MLflow server ended"
        try:
            if httpx.get(f"{uri}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"no MLflow server at {uri} after {START_S} s")


@pytest.mark.slow
def test_the_same_over_http_against_a_real_mlflow_server(
    serving, published, bundles, tmp_path, take_port
):
    """The registry is a server process; it is killed while we serve, and is away at a restart."""
    port = take_port()
    uri = f"http://127.0.0.1:{port}"
    folder = tmp_path / "mlflow"
    folder.mkdir()
    # A migrated database: a server's first start on an empty one costs fifteen seconds.
    origin = Path(tracking_uri(published).removeprefix("sqlite:///"))
    shutil.copy(origin, folder / "mlflow.db")
    mlflow = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(uri, mlflow)
        recipe = make_recipe(tmp_path / "run", uri)
        recipe = replace(recipe, name="web")
        publish(recipe, bundles[2])
        promote(recipe)
        arguments = (
            "--model",
            "web@champion",
            "--registry",
            uri,
            "--cache",
            str(tmp_path / "cache"),
        )
        with serving(*arguments, "--poll-s", "0.2") as server:
            answer = httpx.get(f"{server.base}/v1/items/item-1/similar").json()
            assert answer["bundle"] == bundles[2].name
            os.killpg(mlflow.pid, signal.SIGKILL)
            mlflow.wait()
            server.wait_for(" source_away ")
            assert httpx.get(f"{server.base}/v1/items/item-1/similar").status_code == 200
        with serving(*arguments) as server:
            answer = httpx.get(f"{server.base}/v1/items/item-1/similar").json()
            assert answer["bundle"] == bundles[2].name
    finally:
        if mlflow.poll() is None:
            os.killpg(mlflow.pid, signal.SIGKILL)
            mlflow.wait()
