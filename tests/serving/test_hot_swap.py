"""New bundles under load: no request lost, no answer mixed, nothing bad taken."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from muxrec.bundle.sample import sample_bundle
from muxrec.manifest import manifest_digest, write_text_atomically

CLIENTS = 8
SWAPS = 10
ADMIN = {"X-Muxrec-Admin": "yes"}
REQUEST = b"GET /v1/items/item-%d/similar?k=%d HTTP/1.1\r\nhost: test\r\n\r\n"


def point_at(root: Path, folder: Path) -> None:
    write_text_atomically(root / "CURRENT", folder.name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, bundles: list[Path]) -> Path:
    """A folder of bundles that points at the first."""
    folder = tmp_path_factory.mktemp("followed")
    for bundle in bundles:
        shutil.copytree(bundle, folder / bundle.name)
    point_at(folder, bundles[0])
    return folder


@pytest.fixture(scope="module")
def expected(states) -> dict[str, dict[str, list[str]]]:
    """Bundle -> item -> its whole neighbour list: what an unmixed answer looks like."""
    return {
        state.digest: {
            item_id: [state.catalogue.item_ids[n] for n in state.neighbours[at].tolist()]
            for at, item_id in enumerate(state.catalogue.item_ids)
        }
        for state in states
    }


class Load:
    """Clients on kept connections that ask without pause and check every answer."""

    def __init__(self, port: int, expected: dict[str, dict[str, list[str]]]) -> None:
        self._port = port
        self._expected = expected
        self.answers: dict[str, int] = {}
        self.faults: list[str] = []
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        turn = number
        while not self._stop.is_set():
            item, k = turn % 200, 1 + turn % 20
            turn += CLIENTS
            try:
                writer.write(REQUEST % (item, k))
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self._check(head, json.loads(await reader.readexactly(size)), item, k)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.faults.append(repr(error))
                return
        writer.close()

    def _check(self, head: bytes, body: dict, item: int, k: int) -> None:
        found = [neighbour["item_id"] for neighbour in body.get("neighbours", ())]
        bundle = body.get("bundle", "")
        if not head.startswith(b"HTTP/1.1 200"):
            self.faults.append(f"{head[:20]!r} {body}")
        elif found != self._expected[bundle][f"item-{item}"][:k]:
            self.faults.append(f"mixed: {bundle} item-{item} {found}")
        self.answers[bundle] = self.answers.get(bundle, 0) + 1


def follow(serving, root: Path):
    return serving("--bundle", str(root), "--poll-s", "0.1", "--settle-s", "0")


def test_ten_swaps_under_load_lose_and_mix_nothing(serving, root, bundles, expected):
    async def story(server) -> Load:
        async with Load(server.port, expected) as load:
            for swap in range(1, SWAPS + 1):
                target = bundles[swap % 3]
                point_at(root, root / target.name)
                await asyncio.to_thread(server.wait_for, f"serving bundle={target.name}")
        return load

    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server:
        load = asyncio.run(story(server))
        text = httpx.get(f"{server.base}/metrics").text
    assert load.faults == []
    assert f"muxrec_swaps_total {float(SWAPS)}" in text
    assert all(load.answers.get(bundle.name, 0) > 100 for bundle in bundles), load.answers


def spoil(folder: Path, name: str, change: str) -> None:
    path = folder / name
    body = bytearray(path.read_bytes())
    if change == "cut":
        del body[len(body) // 2 :]
    else:
        body[len(body) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(body)


def reseal(folder: Path) -> None:
    """Make the manifest agree with a damaged file, as a publisher with a fault would."""
    from muxrec.manifest import seal

    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    kept = {k: v for k, v in manifest.items() if k not in ("files", "kind", "format_version")}
    seal(folder, kind=manifest["kind"], format_version=manifest["format_version"], body=kept)


BAD = [
    ("index.hnsw", "cut", False),
    ("item_tower.onnx", "edit", False),
    ("items.parquet", "cut", False),
    ("manifest.json", "cut", False),
    ("index.hnsw", "edit", True),
    ("vectors.npy", "edit", True),
    ("item_tower.onnx", "cut", True),
]


def test_bad_bundles_never_replace_a_good_one(serving, root, bundles, expected, tmp_path):
    """Offered under load one after the other: refused once each, logged, counted, still ready."""

    async def story(server) -> Load:
        async with Load(server.port, expected) as load:
            for number, (name, change, sealed) in enumerate(BAD):
                made = sample_bundle(tmp_path / str(number), seed=10 + number)
                spoil(made, name, change)
                if sealed:
                    reseal(made)
                folder = root / f"{number:012x}"
                shutil.copytree(made, folder)
                point_at(root, folder)
                line = await asyncio.to_thread(server.wait_for, " bundle_refused ")
                assert f"still_serving={bundles[0].name}" in line
                async with httpx.AsyncClient(base_url=server.base) as client:
                    assert (await client.get("/health/ready")).status_code == 200
                    text = (await client.get("/metrics")).text
                total = [
                    line for line in text.splitlines() if line.startswith("muxrec_refusals_total{")
                ]
                assert sum(float(line.split()[-1]) for line in total) == number + 1
        return load

    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server:
        load = asyncio.run(story(server))
        assert load.faults == []
        assert set(load.answers) == {bundles[0].name}
        # A good one after all that is taken; and none of the bad ones was tried twice.
        point_at(root, root / bundles[1].name)
        server.wait_for(f"serving bundle={bundles[1].name}")
        refusals = [line for line in server.log if " bundle_refused " in line]
        assert len(refusals) == len(BAD)


def test_a_pointer_to_nothing_is_reported_once_and_changes_nothing(serving, root, bundles):
    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server:
        (root / "CURRENT").write_text("ffffffffffff")
        assert "ffffffffffff" in server.wait_for(" source_away ")
        assert httpx.get(f"{server.base}/health/ready").status_code == 200
        point_at(root, root / bundles[1].name)
        server.wait_for(f"serving bundle={bundles[1].name}")
        assert sum(" source_away " in line for line in server.log) == 1


def test_roll_back_and_reload_over_the_loopback_port(serving, root, bundles, take_port):
    port = take_port()
    admin = f"http://127.0.0.1:{port}/admin"
    point_at(root, root / bundles[0].name)
    with serving(
        "--bundle", str(root), "--poll-s", "0.1", "--settle-s", "0", "--admin-port", str(port)
    ) as server:
        point_at(root, root / bundles[1].name)
        server.wait_for(f"serving bundle={bundles[1].name}")
        assert httpx.post(f"{admin}/rollback").status_code == 403
        assert httpx.get(f"{admin}/status", headers={"host": "evil.example"}).status_code == 403
        assert httpx.get(f"{server.base}/admin/status").status_code == 404
        back = httpx.post(f"{admin}/rollback", headers=ADMIN, timeout=60).json()
        assert (back["result"], back["bundle"]) == ("rolled back", bundles[0].name)
        assert back["pinned"] is True
        served = httpx.get(f"{server.base}/v1/items/item-1/similar").json()["bundle"]
        assert served == bundles[0].name
        again = httpx.post(f"{admin}/reload", headers=ADMIN, timeout=60).json()
        assert (again["result"], again["bundle"]) == ("swapped", bundles[1].name)
        assert again["pinned"] is False
        assert httpx.post(f"{admin}/reload", headers=ADMIN).json()["result"] == "unchanged"


def test_a_respawned_worker_begins_with_the_bundle_that_was_served_last(serving, root, bundles):
    """CURRENT points at rubbish by then: the worker must not begin with that."""
    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server:
        point_at(root, root / bundles[2].name)
        server.wait_for(f"serving bundle={bundles[2].name}")
        (root / "CURRENT").write_text("ffffffffffff")
        server.wait_for(" source_away ")
        os.kill(server.worker, 9)
        server.wait_for(" listening ")
        served = httpx.get(f"{server.base}/v1/items/item-1/similar").json()["bundle"]
        assert served == bundles[2].name


def test_an_offer_outside_the_allow_list_is_refused(serving, root, bundles):
    point_at(root, root / bundles[0].name)
    with serving(
        "--bundle",
        str(root),
        "--poll-s",
        "0.1",
        "--settle-s",
        "0",
        "--allow-digest",
        bundles[0].name,
        "--allow-digest",
        bundles[1].name,
    ) as server:
        point_at(root, root / bundles[2].name)
        assert "not on the allow-list" in server.wait_for(" bundle_refused ")
        point_at(root, root / bundles[1].name)
        server.wait_for(f"serving bundle={bundles[1].name}")


def test_live_items_outlive_a_swap(serving, root, bundles):
    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server, httpx.Client(base_url=server.base) as client:
        assert client.put("/v1/items/new", json={"plot": [0.5] * 16}).status_code == 201
        assert client.delete("/v1/items/item-1").status_code == 200
        before = client.get("/v1/items/new/similar?k=3").json()
        point_at(root, root / bundles[1].name)
        server.wait_for(f"serving bundle={bundles[1].name}")
        after = client.get("/v1/items/new/similar?k=3").json()
        assert (before["bundle"], after["bundle"]) == (bundles[0].name, bundles[1].name)
        assert before["neighbours"] != after["neighbours"]
        assert client.get("/v1/items/item-1").status_code == 404


def test_a_bundle_of_another_hash_spec_never_replaces_a_good_one(serving, root, bundles, tmp_path):
    made = sample_bundle(tmp_path, seed=30)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["hash_version"] = "murmur-0"
    (made / "manifest.json").write_text(json.dumps(manifest))
    folder = root / manifest_digest(made)[:12]
    shutil.copytree(made, folder)
    point_at(root, root / bundles[0].name)
    with follow(serving, root) as server:
        point_at(root, folder)
        line = server.wait_for(" bundle_refused ")
        assert "murmur-0" in line
        assert f"still_serving={bundles[0].name}" in line
        assert httpx.get(f"{server.base}/health/ready").status_code == 200
    done = subprocess.run(
        [sys.executable, "-m", "muxrec.cli", "serve", "--bundle", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "murmur-0" in done.stderr
