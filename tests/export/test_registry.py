import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from muxrec.bundle import Bundle
from muxrec.bundle.sample import sample_bundle
from muxrec.errors import BundleError, RegistryError
from muxrec.recipe.model import Tracking
from muxrec.tracking.aliases import Gate, Move, promote, rollback, version_metrics, version_of
from muxrec.tracking.registry import flat_metrics, publish
from muxrec.tracking.server import connect, tracking_uri

LOAD_BY_ALIAS = """
import json, sys
from muxrec.tracking.server import prepare_environment
prepare_environment()
import mlflow, pandas as pd
uri, model, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
loaded = mlflow.pyfunc.load_model(model)
answer = loaded.predict(pd.DataFrame({"item_id": ids}), params={"k": 5})
print(json.dumps([answer["neighbours"].tolist(), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of different quality."""
    root = tmp_path_factory.mktemp("bundles")
    return [
        sample_bundle(root, count=40, dim=8, seed=seed, recall=0.5 - seed / 10) for seed in (0, 1)
    ]


def alias_versions(recipe, name="tiny"):
    client = connect(recipe)
    found = {a: version_of(client, name, a) for a in ("champion", "challenger", "previous")}
    return {alias: version for alias, version in found.items() if version is not None}


def test_publishing_registers_the_bundle_with_its_lineage(recipe, bundles):
    published = publish(recipe, bundles[0])
    bundle = Bundle.open(bundles[0])
    client = connect(recipe)
    version = client.get_model_version("tiny", published.version)
    assert version.tags["muxrec.bundle_digest"] == bundle.digest
    assert version.tags["muxrec.hash_version"] == "xxh64-mulshift-1"
    assert version.tags["muxrec.recipe_hash"] == bundle.manifest["recipe_hash"]
    assert alias_versions(recipe) == {"challenger": "1"}
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.inputs.dataset_inputs[0].dataset.digest == bundle.manifest["data_digest"][:36]
    assert version_metrics(client, "tiny", published.version) == {"recall_at_10": 0.5}


def test_the_same_bundle_is_registered_once(recipe, bundles):
    assert publish(recipe, bundles[0]).is_new
    again = publish(recipe, bundles[0])
    assert (again.version, again.is_new) == ("1", False)


def test_promote_and_rollback_move_the_aliases(recipe, bundles):
    for folder in bundles:
        publish(recipe, folder)
    assert promote(recipe, "1") == [Move("champion", None, "1")]
    assert promote(recipe) == [Move("previous", None, "1"), Move("champion", "1", "2")]
    assert alias_versions(recipe) == {"champion": "2", "previous": "1", "challenger": "2"}
    assert promote(recipe) == []
    assert rollback(recipe) == [Move("champion", "2", "1"), Move("previous", "1", None)]
    assert alias_versions(recipe) == {"champion": "1", "challenger": "2"}
    with pytest.raises(RegistryError, match="no previous champion"):
        rollback(recipe)


@pytest.mark.parametrize("version", ["77", "0", "x", "-1"])
def test_an_unknown_version_is_refused_with_the_known_ones(version, recipe, bundles):
    publish(recipe, bundles[0])
    with pytest.raises(RegistryError, match=r"no version .* \(known: 1\)"):
        promote(recipe, version)
    assert alias_versions(recipe) == {"challenger": "1"}


def test_a_model_that_was_never_published_cannot_be_promoted(recipe):
    with pytest.raises(RegistryError, match="no challenger"):
        promote(recipe)
    with pytest.raises(RegistryError, match="no previous"):
        rollback(recipe)


def test_the_gate_keeps_a_worse_version_out_unless_forced(recipe, bundles):
    for folder in bundles:
        publish(recipe, folder)
    promote(recipe, "1", gate=Gate("recall_at_10"))
    with pytest.raises(RegistryError, match=r"0\.4, champion 1 has 0\.5"):
        promote(recipe, gate=Gate("recall_at_10", 0.05))
    assert alias_versions(recipe)["champion"] == "1"
    with pytest.raises(RegistryError, match=r"no metric speed \(known: recall_at_10\)"):
        promote(recipe, gate=Gate("speed"))
    assert promote(recipe, gate=Gate("recall_at_10", 0.2))
    rollback(recipe)
    assert promote(recipe, gate=Gate("recall_at_10"), force=True)


def test_a_damaged_bundle_is_not_published(recipe, tmp_path):
    folder = sample_bundle(tmp_path, count=10, dim=4)
    (folder / "vectors.npy").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"vectors\.npy"):
        publish(recipe, folder)


def test_a_registry_that_is_down_fails_in_seconds_and_the_bundle_stays(away_recipe, bundles):
    for call in (lambda: publish(away_recipe, bundles[0]), lambda: promote(away_recipe, "1")):
        begin = time.monotonic()
        with pytest.raises(RegistryError, match="does not answer") as caught:
            call()
        assert time.monotonic() - begin < 15  # one retry; the client's default is 248 s
        assert away_recipe.tracking.uri in str(caught.value)
    with pytest.raises(RegistryError, match=str(bundles[0])):
        publish(away_recipe, bundles[0])
    Bundle.open(bundles[0])


def test_a_registry_that_never_answers_fails_after_its_timeout(recipe, bundles, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stuck = dataclasses.replace(recipe, tracking=Tracking(uri=uri))
        begin = time.monotonic()
        with pytest.raises(RegistryError, match="does not answer"):
            publish(stuck, bundles[0])
        assert time.monotonic() - begin < 15  # two attempts of one second and a pause


def test_nested_metrics_become_flat_names():
    nested = {
        "all": {"recall@10": 0.5, "n": 3, "name": "x"},
        "cold": {"deep": {"mrr": 1}},
        "ok": True,
    }
    assert dict(flat_metrics(nested)) == {
        "all.recall_at_10": 0.5,
        "all.n": 3.0,
        "cold.deep.mrr": 1.0,
    }


@pytest.fixture
def server(tmp_path, empty_database):
    """A real ``mlflow server`` on loopback; the test may kill it."""
    database = tmp_path / "server.db"
    database.write_bytes(empty_database.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # It starts its web server by name.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = (tmp_path / "server.log").open("wb")
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_healthy(process, url)
            yield process, url
        finally:
            process.terminate()


def wait_until_healthy(process, url):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        try:
            process.wait(timeout=0.25)
            raise AssertionError(f"mlflow server ended with {process.returncode}")
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("mlflow server was not healthy after 120 s")


@pytest.mark.slow
def test_the_whole_road_against_a_real_server_over_http(server, recipe, bundles):
    process, url = server
    remote = dataclasses.replace(recipe, tracking=Tracking(uri=url))
    assert tracking_uri(remote) == url
    first, second = (publish(remote, folder) for folder in bundles)
    assert (first.version, second.version) == ("1", "2")
    promote(remote, "1")
    promote(remote)
    rollback(remote)
    assert alias_versions(remote) == {"champion": "1", "challenger": "2"}
    bundle = Bundle.open(bundles[0])
    ids = [*bundle.item_ids[:4], "never seen"]
    command = [sys.executable, "-c", LOAD_BY_ALIAS, url, "models:/tiny@champion", json.dumps(ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    neighbours, has_torch = json.loads(done.stdout.splitlines()[-1])
    expected = [bundle.item_ids[bundle.neighbours[at, :5]].tolist() for at in range(4)]
    assert neighbours == [*expected, []]
    assert not has_torch
    process.terminate()
    process.wait(timeout=30)
    begin = time.monotonic()
    with pytest.raises(RegistryError, match="does not answer"):
        publish(remote, bundles[0])
    assert time.monotonic() - begin < 15
