import numpy as np
import pytest

from muxrec.bundle import Bundle, TowerSession
from muxrec.bundle.sample import sample_features, sample_tower
from muxrec.errors import BundleError, DataError, HashMismatchError

FEATURES = sample_features(16)


@pytest.fixture(scope="module")
def tower(bundle_folder):
    return Bundle.open(bundle_folder).tower()


def inputs(batch=3, **changes):
    rng = np.random.default_rng(0)
    good = {
        "plot.values": rng.normal(size=(batch, 16)).astype(np.float32),
        "plot.present": np.ones(batch, dtype=np.float32),
        "poster.values": rng.normal(size=(batch, 16)).astype(np.float32),
        "poster.present": np.ones(batch, dtype=np.float32),
    }
    return good | changes


BAD = {
    "float64": {"plot.values": np.ones((3, 16))},
    "narrow": {"plot.values": np.ones((3, 8), np.float32)},
    "another batch": {"plot.values": np.ones((2, 16), np.float32)},
    "another rank": {"plot.present": np.ones((3, 1), np.float32)},
    "an unknown name": {"plto.values": np.ones((3, 16), np.float32)},
    "NaN": {"plot.values": np.full((3, 16), np.nan, np.float32)},
    "infinite": {"poster.values": np.full((3, 16), np.inf, np.float32)},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_bad_inputs_are_refused_before_or_after_the_run(changes, tower):
    with pytest.raises(DataError):
        tower.run(inputs(**changes))


def test_a_missing_input_and_an_empty_batch_are_refused(tower):
    with pytest.raises(DataError, match=r"poster\.present"):
        tower.run({k: v for k, v in inputs().items() if k != "poster.present"})
    with pytest.raises(DataError, match="at least one item"):
        tower.run(inputs(batch=0))


def test_no_items_encode_to_no_vectors(tower, bundle_folder):
    arrays = Bundle.open(bundle_folder).encoder().encode_items([])
    vectors, parts = tower.encode(arrays)
    assert (vectors.shape, parts.shape) == ((0, 16), (0, 2, 16))


def test_a_provider_that_is_not_active_is_an_error(bundle_folder):
    with pytest.raises(BundleError, match="CUDAExecutionProvider"):
        Bundle.open(bundle_folder).tower(provider="cuda")


def test_a_graph_of_another_hash_spec_is_refused(tmp_path):
    import onnx
    from onnx import helper

    model = sample_tower(FEATURES)
    helper.set_model_props(model, {"muxrec.hash_version": "murmur-0"})
    onnx.save(model, tmp_path / "tower.onnx")
    with pytest.raises(HashMismatchError, match="murmur-0"):
        TowerSession(tmp_path / "tower.onnx", features=FEATURES)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 50])
def test_what_is_no_graph_is_refused(content, tmp_path):
    (tmp_path / "tower.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"tower\.onnx"):
        TowerSession(tmp_path / "tower.onnx", features=FEATURES)
