"""The real server over real sockets: limits, stopping, starting wrong, dying."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from muxrec_serving import limits

HEAD = b"GET /v1/items/item-1/similar?k=3 HTTP/1.1\r\nhost: test\r\n"


def talk(port: int, sent: bytes, *, timeout_s: float = 20) -> bytes:
    """Send bytes and read until the server closes or a whole answer is there."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        try:
            connection.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            return b"refused while sending"
        try:
            return connection.recv(65536)
        except ConnectionResetError:
            return b"refused while reading"


def test_it_answers_and_says_what_it_serves(server, bundles):
    answer = httpx.get(f"{server.base}/v1/items/item-1/similar?k=3")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body["bundle"] == bundles[0].name
    assert len(body["neighbours"]) == 3
    version = httpx.get(f"{server.base}/version").json()
    assert version["digest"].startswith(bundles[0].name)
    assert version["hash_version"]
    assert httpx.get(f"{server.base}/health/live").status_code == 200
    assert httpx.get(f"{server.base}/health/ready").json()["bundle"] == bundles[0].name


def test_metrics_count_requests_sources_and_name_the_bundle(server, bundles):
    httpx.get(f"{server.base}/v1/items/item-1/similar?k=3")
    httpx.get(f"{server.base}/v1/items/nobody/similar")
    text = httpx.get(f"{server.base}/metrics").text
    assert f'muxrec_bundle_info{{alias="",digest="{bundles[0].name}"' in text
    assert 'muxrec_requests_total{route="/v1/items/{item_id}/similar",status="404"}' in text
    assert 'muxrec_answers_total{source="precomputed"}' in text
    assert 'muxrec_request_seconds_bucket{le="0.001"' in text
    assert "muxrec_ready 1.0" in text


def test_a_callers_request_id_comes_back_and_is_logged(server):
    headers = {"x-request-id": "abc123"}
    answer = httpx.get(f"{server.base}/v1/items/nobody/similar", headers=headers)
    assert answer.headers["x-request-id"] == "abc123"
    assert "status=404" in server.wait_for("request_id=abc123")
    hostile = {"x-request-id": "a b\tc"}
    answer = httpx.get(f"{server.base}/v1/items/nobody/similar", headers=hostile)
    assert answer.headers["x-request-id"] != "a b\tc"


def test_no_torch_is_in_the_running_server(server):
    """A loaded torch maps its libraries; the process's own map of its memory shows none."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "/torch/" not in maps
    assert "onnxruntime" in Path(f"/proc/{server.worker}/maps").read_text()


def test_everything_that_serves_is_imported_without_torch(bundles):
    code = (
        "import sys, asyncio; from pathlib import Path\n"
        "from muxrec_serving import command; from muxrec_serving.following import registry\n"
        "from muxrec_serving.process import server, worker; from muxrec_serving.web import app\n"
        "from muxrec_serving.following.origin import Origin\n"
        "from muxrec_serving.answering.state import load_state\n"
        "from muxrec_serving.answering.service import Service\n"
        f"service = Service(load_state(Origin(Path({str(bundles[0])!r}))))\n"
        "asyncio.run(service.embed([{'plot': [0.5] * 16}]))\n"
        "import mlflow; mlflow.MlflowClient\n"
        "assert not {'torch', 'torchrec', 'triton', 'fbgemm_gpu'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ABUSE = {
    "garbage": b"\x00\xff\x01 garbage\r\n\r\n",
    "a negative length": b"POST /v1/similar HTTP/1.1\r\nhost: x\r\ncontent-length: -4\r\n\r\n",
    "a header too large": HEAD + b"a: " + b"x" * 200_000 + b"\r\n\r\n",
    "a header of megabytes": HEAD + b"a: " + b"x" * 5_000_000 + b"\r\n\r\n",
    "a thousand headers": HEAD + b"a: b\r\n" * 1000 + b"\r\n",
    "a declared body too large": (
        b"POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100000000000\r\n\r\n"
    ),
    "a path too long": b"GET /v1/items/" + b"x" * 60_000 + b"/similar HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", ABUSE.values(), ids=ABUSE.keys())
def test_abuse_is_refused_and_others_are_served(server, sent):
    answer = talk(server.port, sent)
    assert answer.startswith((b"HTTP/1.1 4", b"refused")), answer[:100]
    assert talk(server.port, HEAD + b"\r\n").startswith(b"HTTP/1.1 200")


def test_a_chunked_body_without_end_is_cut_at_the_limit(server):
    head = (
        b"POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    assert talk(server.port, head + chunk * 9)[:12] in (b"HTTP/1.1 413", b"refused whil")
    assert talk(server.port, HEAD + b"\r\n").startswith(b"HTTP/1.1 200")


def test_half_sent_requests_are_closed_and_others_are_served(server):
    heads = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    bodies = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    for connection in heads:
        connection.sendall(b"GET /v1/items/item-1/similar HTTP/1.1\r\nhos")
    for connection in bodies:
        connection.sendall(
            b"POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
    assert talk(server.port, HEAD + b"\r\n").startswith(b"HTTP/1.1 200")
    for connection in heads:
        connection.settimeout(limits.HEADER_TIMEOUT_S * 4)
        assert connection.recv(100) == b""
        connection.close()
    for connection in bodies:
        connection.settimeout(limits.BODY_TIMEOUT_S * 3)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        connection.close()


def test_the_server_grows_little_under_bad_requests(server):
    process = psutil.Process(server.worker)
    body = json.dumps({"vectors": [[0.5] * 15] * 256})
    with httpx.Client(base_url=server.base) as client:

        def many(count: int) -> None:
            for n in range(count):
                client.get(f"/v1/items/nobody-{n}/similar")
                client.get(f"/v1/items/item-1/similar?filter=genre:x{n}")
                if n % 20 == 0:
                    client.post(
                        "/v1/similar", content=body, headers={"content-type": "application/json"}
                    )

        many(300)
        before = process.memory_info().rss
        many(3000)
    # 20 MB: caches of filters and parsed queries fill up; a leak per request would pass it.
    assert process.memory_info().rss - before < 20 * 2**20


def test_a_port_in_use_is_one_line_and_exit_1(server, bundles):
    command = [sys.executable, "-m", "muxrec.cli", "serve", "--bundle", str(bundles[0])]
    for option in ("--port", "--admin-port"):
        done = subprocess.run(
            [*command, option, str(server.port)], capture_output=True, text=True, check=False
        )
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 1
        assert len(lines) == 1
        assert f"127.0.0.1:{server.port}" in lines[0]
        assert f"choose another {option}" in lines[0]


def spoil(folder: Path, name: str, how: str) -> None:
    path = folder / name
    body = path.read_bytes()
    middle = len(body) // 2
    changed = {
        "truncated": body[:middle],
        "edited": body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :],
        "missing": None,
    }[how]
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)


DAMAGE = [
    ("index.hnsw", "truncated"),
    ("item_tower.onnx", "edited"),
    ("items.parquet", "edited"),
    ("vectors.npy", "missing"),
    ("manifest.json", "truncated"),
    ("manifest.json", "edited"),
]


@pytest.mark.parametrize(("name", "how"), DAMAGE)
def test_a_damaged_bundle_is_not_served(bundles, tmp_path, start_server, name, how):
    folder = tmp_path / bundles[0].name
    shutil.copytree(bundles[0], folder)
    spoil(folder, name, how)
    server = start_server("--bundle", str(folder))
    assert server.process.wait(timeout=60) == 1
    said = "".join(server.log)
    assert name in said
    assert "Traceback" not in said
    assert len(server.log) == 1, said


def test_a_folder_without_a_bundle_is_named(tmp_path, start_server):
    server = start_server("--bundle", str(tmp_path))
    assert server.process.wait(timeout=60) == 1
    assert f"{tmp_path} holds no manifest.json" in "".join(server.log)


def test_a_digest_that_is_not_allowed_is_not_served(bundles, start_server, tmp_path):
    listed = tmp_path / "digests"
    listed.write_text("0123456789ab\n" * 2)
    server = start_server("--bundle", str(bundles[0]), "--allow-digest", str(listed))
    assert server.process.wait(timeout=60) == 1
    assert "not on the allow-list" in "".join(server.log)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--bundle", "x", "--model", "m@champion"],
        ["--model", "m"],
        ["--bundle", "x", "--workers", "2", "--journal", "j"],
        ["--bundle", "x", "--allow-digest", "nonsense"],
        ["--bundle", "x", "--port", "99999"],
    ],
)
def test_bad_usage_exits_2(arguments):
    command = [sys.executable, "-m", "muxrec.cli", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_sigterm_turns_readiness_off_finishes_requests_and_exits_0(serving, bundles):
    """Clients that ask all the time, each on one connection, see no broken answer."""
    stopping = threading.Event()
    statuses: list[int] = []
    broken: list[str] = []
    body = {"items": [{"plot": [0.5] * 16}] * 64, "k": 50, "explain": True}

    def ask(server) -> None:
        with httpx.Client(base_url=server.base, timeout=30) as client:
            while True:
                try:
                    answer = client.post("/v1/similar", json=body)
                    answer.json()
                    statuses.append(answer.status_code)
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    # A kept connection that the server closed between two requests is no answer
                    # lost: the next one finds the port closed. Anything else is.
                    if not isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError)):
                        broken.append(repr(error))
                        return
                    if not stopping.is_set():
                        broken.append(repr(error))
                        return

    with serving("--bundle", str(bundles[0]), "--drain-s", "1.5") as server:
        with ThreadPoolExecutor(6) as pool:
            asking = [pool.submit(ask, server) for _ in range(6)]
            while len(statuses) < 20:
                httpx.get(f"{server.base}/health/live")
            stopping.set()
            server.process.send_signal(signal.SIGTERM)
            while httpx.get(f"{server.base}/health/ready").status_code != 503:
                pass
            code = server.process.wait(timeout=30)
            for asked in asking:
                asked.result()
        assert code == 0
        assert broken == []
        assert set(statuses) == {200}
        assert "Traceback" not in "".join(server.log)


def test_a_request_in_flight_is_answered_after_sigterm(serving, bundles):
    """The body is sent in two halves, with SIGTERM and the end of listening in between."""
    body = json.dumps({"item_ids": ["item-1"], "k": 2}).encode()
    head = (
        b"POST /v1/similar HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    with serving("--bundle", str(bundles[0]), "--drain-s", "0") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head + body[:5])
            httpx.get(f"{server.base}/health/live")
            server.process.send_signal(signal.SIGTERM)
            while is_listening(server.port):
                pass
            connection.sendall(body[5:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert server.process.wait(timeout=30) == 0


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_ctrl_c_reaches_supervisor_and_workers_and_exits_0(serving, bundles):
    with serving("--bundle", str(bundles[0])) as server:
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(timeout=30) == 0
    assert "Traceback" not in "".join(server.log)
    assert sum(" listening " in line for line in server.log) == 1


def test_a_killed_worker_is_replaced(serving, bundles):
    with serving("--bundle", str(bundles[0])) as server:
        os.kill(server.worker, signal.SIGKILL)
        server.wait_for(" listening ")
        answer = httpx.get(f"{server.base}/v1/items/item-1/similar")
        assert answer.status_code == 200
    assert server.process.returncode == 0


def test_two_workers_share_the_port_and_sum_their_metrics(serving, bundles):
    with serving("--bundle", str(bundles[0]), "--workers", "2") as server:
        server.wait_for(" listening ")
        for _ in range(40):
            # A fresh connection each: the kernel gives it to either worker.
            assert httpx.get(f"{server.base}/v1/items/item-1/similar").status_code == 200
        refused = httpx.put(f"{server.base}/v1/items/x", json={"plot": [0.5] * 16})
        assert refused.status_code == 409
        assert "--workers 1" in refused.json()["error"]["message"]
        text = httpx.get(f"{server.base}/metrics").text
        assert (
            'muxrec_requests_total{route="/v1/items/{item_id}/similar",status="200"} 40.0' in text
        )
    assert server.process.returncode == 0


def test_live_items_survive_a_restart_with_a_journal(serving, bundles, tmp_path):
    arguments = ("--bundle", str(bundles[0]), "--journal", str(tmp_path / "journal"))
    with serving(*arguments) as server:
        put = httpx.put(f"{server.base}/v1/items/new", json={"plot": [0.5] * 16, "title": "Neu"})
        assert put.status_code == 201
        assert httpx.delete(f"{server.base}/v1/items/item-3").status_code == 200
        os.kill(server.worker, signal.SIGKILL)
        server.wait_for(" listening ")
        assert httpx.get(f"{server.base}/v1/items/new").json()["title"] == "Neu"
    with serving(*arguments) as server:
        assert httpx.get(f"{server.base}/v1/items/new").json()["title"] == "Neu"
        assert httpx.get(f"{server.base}/v1/items/item-3").status_code == 404
