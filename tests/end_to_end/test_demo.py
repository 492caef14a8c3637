"""The whole road: a made-up log in, true neighbours out of a server, and recall above a floor."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from muxrec.bundle import Bundle
from muxrec.demo.server import free_port, running_server

pytestmark = [pytest.mark.slow, pytest.mark.spark]


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-m", "muxrec.cli", "demo", "--folder", str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder: Path) -> subprocess.CompletedProcess[str]:
    done = run_demo(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def recall(folder: Path, first: object) -> dict[str, dict[str, float]]:
    """Slice -> row -> recall at 10."""
    report = json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    return {
        part["name"]: {row["name"]: row["metrics"]["recall_at_10"]["mean"] for row in part["rows"]}
        for part in report["truths"][0]["slices"]
    }


def test_neighbours_come_over_http_and_share_the_true_cluster(
    first: subprocess.CompletedProcess[str],
) -> None:
    asked = re.findall(r"^a .* item: .* \((\w+, \w+)\)$", first.stdout, re.MULTILINE)
    lists = re.split(r"^a .* item: .*$", first.stdout, flags=re.MULTILINE)[1:]
    assert len(asked) == 2
    for cluster, text in zip(asked, lists, strict=True):
        found = re.findall(r"^  -?\d\.\d{3}  .*?(\w+, \w+)  ", text, re.MULTILINE)
        assert len(found) == 5
        # Twelve in a hundred visits stray on purpose, so one of five may be a stranger.
        assert sum(label == cluster for label in found) >= 3


def test_the_tower_beats_what_knows_less(recall: dict[str, dict[str, float]]) -> None:
    everything, new = recall["all"], recall["cold"]
    assert everything["main"] > 5 * everything["popularity"]
    # Ids say nothing about an item that training never saw; words or pictures say half of it.
    assert new["main"] > new["ids only"] + 0.1
    assert new["main"] > max(new["text only"], new["image only"])


def test_the_log_ends_with_the_report_and_every_stage_was_timed(
    first: subprocess.CompletedProcess[str], folder: Path
) -> None:
    report = re.findall(r"^report: (.*)$", first.stdout, re.MULTILINE)
    assert [Path(path).is_file() for path in report] == [True]
    for stage in ("data", "train", "eval", "export", "index", "publish"):
        assert re.search(rf"^{stage} +\d", first.stdout, re.MULTILINE)
    assert (folder / "bundles" / "CURRENT").is_file()


def test_a_second_demo_uses_the_first_one(
    first: subprocess.CompletedProcess[str], folder: Path
) -> None:
    again = run_demo(folder)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "is up to date" in again.stdout
    assert "[1/" not in again.stdout
    ends = [text[text.index("\na well-known item") :] for text in (first.stdout, again.stdout)]
    assert [re.sub(r"done in .*", "", end) for end in ends[:1]] == [
        re.sub(r"done in .*", "", end) for end in ends[1:]
    ]


def new_item(bundle: Bundle, folder: Path) -> tuple[int, dict[str, Any]]:
    """Position and raw columns of a catalogue item with a picture that training never saw."""
    cold = np.flatnonzero(bundle.items["is_cold"].to_numpy())
    position = next(int(at) for at in cold if bundle.image(int(at)) is not None)
    with (folder / "raw" / "items.csv").open(encoding="utf-8") as stream:
        rows = {row["item_id"]: row for row in csv.DictReader(stream)}
    row = rows[bundle.item_ids[position]]
    picture = (folder / "raw" / row["image_path"]).read_bytes()
    return position, {
        "title": row["title"],
        "description": row["description"],
        "tags": row["tags"],
        "price": float(row["price"]),
        "image_path": "data:image/png;base64," + base64.b64encode(picture).decode(),
    }


def test_a_raw_item_of_words_and_a_picture_gets_the_vector_that_training_would_give_it(
    first: subprocess.CompletedProcess[str], folder: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(folder / "bundles")
    position, item = new_item(bundle, folder)
    port = free_port()
    serve = ["-m", "muxrec.cli", "serve", "--bundle", str(folder / "bundles"), "--port", str(port)]
    with running_server([sys.executable, *serve], port=port, log=tmp_path / "log") as base:
        embedded = httpx.post(f"{base}/v1/embed", json={"items": [item]}).json()
        similar = httpx.post(f"{base}/v1/similar", json={"items": [item], "k": 6}).json()
    # 1e-4 is the bar of the export's own parity proof.
    assert np.abs(np.array(embedded["vectors"][0]) - bundle.vectors[position]).max() < 1e-4
    found = [neighbour["item_id"] for neighbour in similar["results"][0]["neighbours"]]
    assert found[0] == bundle.item_ids[position]
    known = [bundle.item_ids[at] for at in bundle.neighbours[position][:5]]
    assert len(set(known) & set(found[1:])) >= 4
