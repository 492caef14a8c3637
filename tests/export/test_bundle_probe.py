import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from muxrec.bundle import Bundle
from muxrec.bundle import format as names
from muxrec.bundle.probe import main, probe, probe_bundle
from muxrec.bundle.sample import sample_bundle
from muxrec.errors import BundleError
from muxrec.manifest import seal


@pytest.fixture
def copy(bundle_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bundle_folder, folder)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    return sample_bundle(tmp_path_factory.mktemp("other"), seed=9)


def reseal(folder, **changes):
    """A manifest that agrees with whatever lies in the folder: hashes are no help any more."""
    body = json.loads((folder / "manifest.json").read_text()) | changes
    seal(folder, kind=names.KIND, format_version=names.FORMAT_VERSION, body=body)


def test_the_probe_of_a_good_bundle_prints_one_line(bundle_folder, capsys):
    line = probe_bundle(bundle_folder)
    assert line.startswith(f"ok digest={Bundle.open(bundle_folder).digest} items=200 ")
    assert main([str(bundle_folder)]) == 0
    assert capsys.readouterr().out.strip() == line


def test_the_probe_of_a_damaged_bundle_fails_in_one_line(copy, capsys):
    (copy / "vectors.npy").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"vectors\.npy has 1 bytes"):
        probe_bundle(copy)
    assert main([str(copy)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_probe_refuses_another_digest(bundle_folder):
    with pytest.raises(BundleError, match="expected ffff"):
        probe_bundle(bundle_folder, digest="f" * 64)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("index.hnsw", "index recall"),
        ("vectors.npy", "parts miss their vector"),
        ("items.parquet", "item ids"),
        ("golden.json", "golden"),
    ],
)
def test_a_part_of_another_bundle_is_found_even_with_a_fitting_manifest(
    name, complaint, copy, other_folder
):
    shutil.copy(other_folder / name, copy / name)
    reseal(copy)
    if name == "items.parquet":
        table = Bundle.open(copy).items
        pq.write_table(table.take(np.arange(200)[::-1].copy()), copy / name)
        reseal(copy)
    with pytest.raises(BundleError, match=complaint):
        probe(copy)


def test_a_tower_that_answers_otherwise_is_found_even_with_a_fitting_manifest(copy):
    model = onnx.load(copy / "item_tower.onnx")
    product = next(node for node in model.graph.node if node.output[0] == "poster.part")
    product.input[0] = "plot.values"
    onnx.save(model, copy / "item_tower.onnx")
    reseal(copy)
    with pytest.raises(BundleError, match="golden vectors differ"):
        probe(copy)


def test_a_tower_of_other_features_is_refused(copy, tmp_path):
    other = sample_bundle(tmp_path / "narrow", dim=8)
    shutil.copy(other / "item_tower.onnx", copy / "item_tower.onnx")
    reseal(copy)
    with pytest.raises(BundleError, match="exported for other features"):
        probe(copy)


def spoil(name, array):
    return lambda folder: np.save(folder / name, array)


SPOILED = {
    "NaN vectors": (spoil("vectors.npy", np.full((200, 16), np.nan, np.float32)), "not unit"),
    "vectors too long": (spoil("vectors.npy", np.ones((200, 16), np.float32)), "not unit"),
    "float64 vectors": (spoil("vectors.npy", np.ones((200, 16))), "expected float32"),
    "wrong neighbours": (spoil("neighbours.npy", np.full((200, 20), 200, np.int32)), "outside"),
    "NaN scores": (spoil("scores.npy", np.full((200, 20), np.nan, np.float32)), "scores"),
    "falling offsets": (spoil("images.npy", np.arange(201)[::-1].copy()), "images.npy"),
    "no golden": (lambda folder: (folder / "golden.json").unlink(), "golden.json"),
    "no tower": (lambda folder: (folder / "item_tower.onnx").unlink(), "item_tower.onnx"),
}


@pytest.mark.parametrize(("spoiler", "complaint"), SPOILED.values(), ids=SPOILED)
def test_what_was_wrong_before_it_was_sealed_is_found(spoiler, complaint, copy):
    spoiler(copy)
    reseal(copy)
    with pytest.raises(BundleError, match=complaint):
        probe(copy)


def test_pickled_arrays_are_never_loaded(copy):
    np.save(copy / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    reseal(copy)
    with pytest.raises(BundleError, match="cannot be read"):
        probe(copy)


def test_a_crash_while_loading_stays_in_the_probe(copy):
    """Links that point nowhere segfault hnswlib; with a fitting manifest nothing else can tell."""
    path = copy / "index.hnsw"
    content = bytearray(path.read_bytes())
    per_element = int.from_bytes(content[24:32], "little")
    start = 96
    for item in range(200):
        begin = start + item * per_element + 4
        content[begin : begin + 16] = b"\xff\xff\xff\x7f" * 4
    path.write_bytes(content)
    reseal(copy)
    with pytest.raises(BundleError, match="killed by SIG"):
        probe_bundle(copy)


def test_a_probe_that_takes_too_long_is_a_refusal(bundle_folder):
    with pytest.raises(BundleError, match=r"more than 0\.01 s"):
        probe_bundle(bundle_folder, timeout_s=0.01)


def test_loading_a_bundle_needs_no_torch_and_no_mlflow(bundle_folder):
    code = (
        "import sys; from pathlib import Path; from muxrec.bundle.probe import probe;"
        "probe(Path(sys.argv[1]));"
        "sys.exit(','.join(sorted({'torch', 'mlflow', 'onnx'} & {*sys.modules})) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
