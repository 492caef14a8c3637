import json
import re
import shutil

import numpy as np
import pytest

from muxrec.bundle import Bundle
from muxrec.bundle.sample import sample_bundle
from muxrec.errors import BundleError, HashMismatchError, MuxrecError

FILES = ["index.hnsw", "item_tower.onnx", "manifest.json", "items.parquet", "vectors.npy"]


@pytest.fixture
def copy(bundle_folder, tmp_path):
    folder = tmp_path / bundle_folder.name
    shutil.copytree(bundle_folder, folder)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    return sample_bundle(tmp_path_factory.mktemp("other"), count=150, dim=8, seed=9)


def truncated(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path, other):
    path.write_bytes(b"")


def edited(path, other):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lengthened(path, other):
    path.write_bytes(path.read_bytes() + b" ")


def mixed(path, other):
    shutil.copy(other / path.name, path)


def missing(path, other):
    path.unlink()


def linked(path, other):
    target = path.parent.parent / f"outside_{path.name}"
    path.rename(target)
    path.symlink_to(target)


DAMAGES = [truncated, emptied, edited, lengthened, mixed, missing, linked]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_by_name(name, damage, copy, other_folder):
    damage(copy / name, other_folder)
    with pytest.raises(BundleError, match=re.escape(name)):
        Bundle.open(copy)


def test_a_file_that_the_manifest_does_not_list_is_refused(copy):
    (copy / "extra.bin").write_bytes(b"1")
    with pytest.raises(BundleError, match=r"extra\.bin"):
        Bundle.open(copy)


def test_a_linked_folder_is_refused(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    (copy / "text_encoders").symlink_to(tmp_path / "empty")
    with pytest.raises(BundleError, match="text_encoders is a link"):
        Bundle.open(copy)


def mutate(content, rng):
    """Flip a bit, cut, zero a block, or swap two blocks; never the identity."""
    data = bytearray(content)
    kind = rng.integers(4)
    at = int(rng.integers(len(data)))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        size = min(512, len(data) - at)
        data[at : at + size] = bytes(size)
    else:
        data[at : at + 16] = data[at : at + 16][::-1]
    return bytes(data)


def test_four_hundred_random_mutations_are_all_refused(copy):
    rng = np.random.default_rng(0)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    tried = 0
    while tried < 400:
        path = files[rng.integers(len(files))]
        good = path.read_bytes()
        bad = mutate(good, rng)
        if bad == good:
            continue
        tried += 1
        path.write_bytes(bad)
        with pytest.raises(MuxrecError):
            Bundle.open(copy)
        path.write_bytes(good)
    Bundle.open(copy)


def rewrite_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 8},
        {"kind": "dataset"},
        {"format_version": 2},
        {"files": []},
        {"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"count": None},
    ],
    ids=str,
)
def test_an_edited_manifest_is_refused_even_where_the_folder_has_another_name(
    changes, bundle_folder, tmp_path
):
    folder = tmp_path / "downloaded"
    shutil.copytree(bundle_folder, folder)
    digest = Bundle.open(folder).digest
    rewrite_manifest(folder, **changes)
    with pytest.raises(BundleError):
        Bundle.open(folder, digest=digest)


def test_a_bundle_of_another_hash_spec_is_refused(copy):
    rewrite_manifest(copy, hash_version="murmur-0")
    with pytest.raises(HashMismatchError, match="murmur-0"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "1e999", '"x"', "\x00"])
def test_a_hostile_manifest_is_a_clear_error(content, copy):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(copy)
