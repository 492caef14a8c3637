"""From catalogue rows to arrays: the same answer for tables and for raw items, nothing silent."""

import base64
import io
import logging

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from muxrec.errors import DataError
from muxrec.features.arrays import Jagged
from muxrec.features.encode import FeatureEncoder
from muxrec.features.ids import joined_text, words_of
from muxrec.features.images import DESCRIPTOR_WIDTH, UnreadablePictureError, describe
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import string_ids

FEATURES = (
    FeatureSpec("item", "id", ("item_id",), "id", "t"),
    FeatureSpec("genres", "bag", ("genres",), "attributes", "t", max_length=2),
    FeatureSpec("words", "tokens", ("title", "plot"), "text", "t"),
    FeatureSpec("decade", "number", ("year",), "attributes", "t", boundaries=(1980, 1990, 2000)),
    FeatureSpec("clip", "vector", ("clip",), "image", width=3),
    FeatureSpec("poster", "image", ("poster",), "image", encoder="descriptor"),
    FeatureSpec("pixels", "image", ("poster",), "image", encoder="conv", image_size=8),
)


def picture(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def rows(tmp_path):
    red = tmp_path / "red.png"
    red.write_bytes(picture((255, 0, 0)))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    return [
        {
            "item_id": "7",
            "genres": ["a", "b", "c"],
            "title": "Über-Cat",
            "plot": "A cat!",
            "year": 1990,
            "clip": [1.0, 2.0, 3.0],
            "poster": str(red),
        },
        {
            "item_id": "9",
            "genres": [],
            "title": None,
            "plot": "",
            "year": None,
            "clip": None,
            "poster": str(broken),
        },
        {
            "item_id": "8",
            "genres": None,
            "title": "dog",
            "plot": None,
            "year": 1979.5,
            "clip": [0.0, 0.0, 1.0],
            "poster": None,
        },
    ]


@pytest.fixture
def encoder():
    return FeatureEncoder(FEATURES, np.array([7, 9], dtype=np.int64))


def as_table(rows):
    keys = pa.array([int(row["item_id"]) for row in rows], pa.int64())
    return pa.Table.from_pylist(rows).append_column("item_key", keys)


def bag(arrays, name, item):
    bags = arrays.sparse[name]
    return bags.ids[bags.offsets[item] : bags.offsets[item + 1]].tolist()


def test_every_kind_is_encoded_as_declared(encoder, rows):
    arrays = encoder.encode(as_table(rows))
    assert bag(arrays, "item", 0) == [7]
    assert bag(arrays, "genres", 0) == string_ids(["a", "b"]).tolist()
    assert bag(arrays, "words", 0) == string_ids(["über", "cat", "a"]).tolist()
    assert [bag(arrays, "decade", i) for i in range(3)] == [[2], [], [0]]
    assert arrays.dense["clip"].present.tolist() == [True, False, True]
    assert arrays.dense["poster"].values.shape == (3, DESCRIPTOR_WIDTH)
    assert arrays.dense["pixels"].values[0, :, 4, 4].tolist() == [255, 0, 0]


def test_an_item_outside_the_training_pairs_has_no_id(encoder, rows):
    arrays = encoder.encode(as_table(rows))
    assert [bag(arrays, "item", i) for i in range(3)] == [[7], [9], []]


def test_raw_items_are_encoded_like_table_rows(encoder, rows):
    of_table, of_items = encoder.encode(as_table(rows)), encoder.encode_items(rows)
    for name, bags in of_table.sparse.items():
        assert np.array_equal(bags.ids, of_items.sparse[name].ids), name
        assert np.array_equal(bags.offsets, of_items.sparse[name].offsets), name
    for name, dense in of_table.dense.items():
        assert np.array_equal(dense.values, of_items.dense[name].values), name
        assert np.array_equal(dense.present, of_items.dense[name].present), name


def test_a_picture_may_come_as_base64(encoder, rows):
    text = "data:image/png;base64," + base64.b64encode(picture((0, 255, 0))).decode()
    arrays = encoder.encode_items([{"poster": text}, {"poster": picture((0, 255, 0))}])
    assert arrays.dense["pixels"].values[0, :, 2, 2].tolist() == [0, 255, 0]
    assert np.array_equal(*arrays.dense["poster"].values)


def test_unreadable_pictures_are_counted_and_missing(encoder, rows, caplog):
    with caplog.at_level(logging.WARNING, "muxrec.features"):
        arrays = encoder.encode(as_table(rows))
    assert arrays.dense["poster"].present.tolist() == [True, False, False]
    assert "feature=poster reason=unreadable count=1" in caplog.text


def test_cut_bags_are_counted(encoder, rows, caplog):
    with caplog.at_level(logging.INFO, "muxrec.features"):
        encoder.encode(as_table(rows))
    assert "feature=genres max_length=2 cut=1" in caplog.text


def test_an_absent_column_is_missing_and_said(encoder, rows, caplog):
    table = as_table(rows).drop_columns(["year"])
    with caplog.at_level(logging.WARNING, "muxrec.features"):
        arrays = encoder.encode(table)
    assert len(arrays.sparse["decade"].ids) == 0
    assert "column=year" in caplog.text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"clip": [1.0, 2.0]}, "feature clip: 3 finite numbers expected"),
        ({"clip": [1.0, 2.0, float("nan")]}, "feature clip: 3 finite numbers expected"),
        ({"clip": "words"}, "feature clip: row 0 is no list of numbers"),
        ({"year": "soon"}, "feature decade .year.: a number was expected"),
    ],
)
def test_a_wrong_value_names_its_feature(encoder, item, message):
    with pytest.raises(DataError, match=message):
        encoder.encode_items([item])


def test_an_id_that_is_no_integer_is_unknown_and_no_error(encoder):
    arrays = encoder.encode_items([{"item_id": "tt-7"}, {"item_id": 7}, {"item_id": 2**70}])
    assert [bag(arrays, "item", i) for i in range(3)] == [[], [7], []]


def test_saved_and_loaded_encoders_agree(encoder, rows, tmp_path):
    encoder.save(tmp_path)
    loaded = FeatureEncoder.load(tmp_path)
    assert np.array_equal(loaded.known_ids, encoder.known_ids)
    assert loaded.integer_columns == encoder.integer_columns
    first, second = encoder.encode_items(rows), loaded.encode_items(rows)
    assert np.array_equal(first.sparse["words"].ids, second.sparse["words"].ids)
    assert loaded.features == encoder.features


def test_take_repeats_and_reorders_bags():
    bags = Jagged(np.arange(6), np.array([0, 2, 2, 6]))
    taken = bags.take(np.array([2, 0, 1, 2]))
    assert taken.ids.tolist() == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert taken.offsets.tolist() == [0, 4, 6, 6, 10]


def test_padding_refuses_bags_that_do_not_fit():
    bags = Jagged(np.arange(3), np.array([0, 3, 3]))
    ids, mask = bags.padded(4)
    assert ids.tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [3, 0]
    with pytest.raises(ValueError, match="3 ids does not fit in 2"):
        bags.padded(2)


def test_ngrams_never_equal_words():
    words = words_of("cat ca", (2, 3))
    assert words[:2] == ["cat", "ca"]
    assert "~<ca" in words
    assert all(word.startswith("~") for word in words[2:])


def test_lists_and_missing_texts_join():
    assert joined_text(["A", None, ["b", "c"], " "]) == "A b c"


def test_descriptors_tell_colours_and_textures_apart():
    flat = describe(picture((10, 10, 10)))
    red, red2 = describe(picture((200, 0, 0))), describe(picture((210, 5, 5)))
    assert np.isfinite(flat).all()
    assert np.linalg.norm(red - red2) < np.linalg.norm(red - flat)
    with pytest.raises(UnreadablePictureError):
        describe(b"GIF89a")
