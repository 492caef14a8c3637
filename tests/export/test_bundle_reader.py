import shutil

import numpy as np
import pytest

from muxrec.bundle import Bundle
from muxrec.bundle.sample import PIXEL, sample_bundle
from muxrec.errors import BundleError
from muxrec.index import exact_search


def test_open_gives_every_part_with_its_declared_type(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    assert bundle.modalities == ("text", "image")
    assert (bundle.vectors.dtype, bundle.vectors.shape) == (np.float32, (200, 16))
    assert (bundle.parts.dtype, bundle.parts.shape) == (np.float16, (200, 2, 16))
    assert (bundle.neighbours.dtype, bundle.neighbours.shape) == (np.int32, (200, 20))
    assert bundle.items.num_rows == len(bundle.item_ids) == 200
    assert bundle.digest.startswith(bundle_folder.name)
    assert bundle.manifest["versions"]["hnswlib"] == "0.8.0"


def test_neighbours_are_exact_and_leave_the_item_itself_out(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    vectors = np.array(bundle.vectors)
    for position in (0, 57, 199):
        found, scores = exact_search(vectors[position : position + 1], vectors, 21)
        others = found[0][found[0] != position]
        assert bundle.neighbours[position].tolist() == others.tolist()
        # One query is scored by another BLAS routine than a block of them.
        np.testing.assert_allclose(bundle.scores[position], scores[0][1:], atol=1e-6)


def test_parts_sum_to_the_vector(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    summed = bundle.parts.astype(np.float32).sum(axis=1)
    np.testing.assert_allclose(summed, bundle.vectors, atol=2e-3)  # parts are float16


def test_an_item_encoded_again_from_its_raw_columns_finds_itself(tmp_path):
    bundle = Bundle.open(sample_bundle(tmp_path, count=50, dim=8, neighbours=5))
    raw = {"item_id": "new", "plot": [1.0] + [0.0] * 7, "poster": [0.0, 1.0] + [0.0] * 6}
    vectors, parts = bundle.tower().encode(bundle.encoder().encode_items([raw, raw]))
    np.testing.assert_allclose(vectors[0, :2], [0.5**0.5] * 2, atol=1e-6)
    np.testing.assert_allclose(parts.sum(axis=1), vectors, atol=1e-6)
    assert bundle.index().search(vectors, 3)[0].shape == (2, 3)


def test_pictures_come_back_byte_by_byte_and_missing_ones_are_none(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    assert [bundle.image(at) for at in range(4)] == [PIXEL, None, PIXEL, None]


def test_a_bundle_without_pictures_has_none(tmp_path):
    from muxrec.bundle import sample

    bundle = Bundle.open(sample.sample_bundle(tmp_path, count=3, dim=4, images=False))
    assert bundle.image(0) is None


def test_the_same_parts_give_the_same_digest(tmp_path):
    first = sample_bundle(tmp_path / "a", count=30, dim=8)
    second = sample_bundle(tmp_path / "b", count=30, dim=8)
    assert first.name == second.name
    assert sample_bundle(tmp_path / "a", count=30, dim=8) == first


def test_a_folder_of_bundles_opens_at_its_current_one(tmp_path):
    first = sample_bundle(tmp_path, count=30, dim=8, seed=1)
    second = sample_bundle(tmp_path, count=30, dim=8, seed=2)
    assert Bundle.open(tmp_path).folder == second
    (tmp_path / "CURRENT").write_text(first.name)
    assert Bundle.open(tmp_path).folder == first


@pytest.mark.parametrize("pointer", ["", "../elsewhere", "/etc", "f" * 12, "x" * 10_000])
def test_a_pointer_to_nothing_is_refused(pointer, tmp_path):
    (tmp_path / "CURRENT").write_text(pointer)
    with pytest.raises(BundleError, match="CURRENT"):
        Bundle.open(tmp_path)


def test_another_digest_than_the_expected_one_is_refused(bundle_folder):
    digest = Bundle.open(bundle_folder).digest
    assert Bundle.open(bundle_folder, digest=digest).digest == digest
    with pytest.raises(BundleError, match="expected ffff"):
        Bundle.open(bundle_folder, digest="f" * 64)


def test_one_item_is_a_bundle_too(tmp_path):
    bundle = Bundle.open(sample_bundle(tmp_path, count=1, dim=4))
    assert bundle.neighbours.shape == bundle.scores.shape == (1, 0)


def test_a_bundle_moves_with_its_folder(bundle_folder, tmp_path):
    moved = tmp_path / "downloaded"
    shutil.copytree(bundle_folder, moved)
    assert Bundle.open(moved).digest == Bundle.open(bundle_folder).digest
