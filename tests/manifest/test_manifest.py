"""Folders that prove themselves: anything but the bytes that were sealed is refused by name."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec.errors import BundleError, HashMismatchError
from muxrec.manifest import (
    MANIFEST,
    canonical_json,
    digest_of,
    manifest_digest,
    published_folder,
    seal,
    verify,
    write_text_atomically,
)

KIND = {"kind": "bundle", "format_version": 1}


@pytest.fixture
def sealed(tmp_path):
    final = tmp_path / "out" / "one"
    with published_folder(final) as folder:
        (folder / "a.bin").write_bytes(b"abcdefgh" * 100)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text("beta")
        seal(folder, **KIND, body={"name": "one"})
    return final


def test_a_sealed_folder_verifies_and_tells_its_body(sealed):
    manifest = verify(sealed, **KIND)
    assert manifest["name"] == "one"
    assert set(manifest["files"]) == {"a.bin", "deep/b.txt"}
    assert [p.name for p in sealed.parent.iterdir()] == ["one"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def replace_by_link(path):
    path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip, r"a\.bin was changed after"),
        (truncate, r"a\.bin has 797 bytes, the manifest says 800"),
        (os.unlink, r"a\.bin is missing"),
        (replace_by_link, r"a\.bin points outside the folder or is a link"),
    ],
)
def test_a_harmed_file_is_refused_by_name(sealed, harm, message):
    harm(sealed / "a.bin")
    with pytest.raises(BundleError, match=message):
        verify(sealed, **KIND)


def test_an_unlisted_file_is_refused(sealed):
    (sealed / "deep" / "extra").write_text("x")
    with pytest.raises(BundleError, match="deep/extra is not listed"):
        verify(sealed, **KIND)


def edit(folder, change):
    path = folder / MANIFEST
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "deep/../../outside"], ids=["up", "root", "through"]
)
def test_a_manifest_cannot_point_outside(sealed, name):
    entry = {"bytes": 1, "sha256": "0" * 64}
    edit(sealed, lambda body: body["files"].update({name: entry}))
    with pytest.raises(BundleError, match="points outside"):
        verify(sealed, **KIND)


def test_another_hash_spec_is_refused_naming_both(sealed):
    edit(sealed, lambda body: body.update(hash_version="md5-1"))
    with pytest.raises(HashMismatchError, match="md5-1, this muxrec knows xxh64"):
        verify(sealed, **KIND)


def test_another_kind_or_format_is_refused(sealed):
    with pytest.raises(BundleError, match="is bundle format 1, expected bundle format 2"):
        verify(sealed, kind="bundle", format_version=2)
    with pytest.raises(BundleError, match="expected dataset format 1"):
        verify(sealed, kind="dataset", format_version=1)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2000), junk=st.binary(max_size=20))
def test_a_damaged_manifest_never_passes_or_crashes(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a").write_bytes(b"x")
    seal(folder, **KIND, body={})
    whole = (folder / MANIFEST).read_bytes()
    damaged = whole[: cut % len(whole)] + junk
    (folder / MANIFEST).write_bytes(damaged)
    if damaged.strip() != whole.strip():
        with pytest.raises(BundleError):
            verify(folder, **KIND)


def test_a_deeply_nested_manifest_is_refused(sealed):
    (sealed / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(BundleError, match="damaged"):
        verify(sealed, **KIND)


def test_a_failing_block_publishes_nothing(tmp_path):
    def fail():
        with published_folder(tmp_path / "x") as folder:
            (folder / "a").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_published_folder_is_never_replaced(sealed):
    before = manifest_digest(sealed)
    with published_folder(sealed) as folder:
        (folder / "a.bin").write_text("other")
        seal(folder, **KIND, body={})
    assert manifest_digest(sealed) == before
    verify(sealed, **KIND)


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "CURRENT"
    write_text_atomically(path, "one")
    write_text_atomically(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["CURRENT"]


def test_canonical_json_ignores_order_of_keys():
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
