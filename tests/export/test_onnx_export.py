import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from muxrec.bundle import Bundle, TowerSession
from muxrec.data.snapshot import Snapshot
from muxrec.errors import BundleError, DataError, TrainingError
from muxrec.export import command
from muxrec.export.pack import export_run
from muxrec.export.parity import STRANGE_IDS, prove_parity, same_top, strange_inputs
from muxrec.export.pictures import picture_files
from muxrec.export.quantise import served_model, served_rows, tables_of
from muxrec.features.prepare import prepare_items
from muxrec.recipe.load import dump_recipe, load_recipe, output_folder, recipe_hash
from muxrec.spec.hashing import hash_rows
from muxrec.tables.rows import ROW_FORMATS
from muxrec.training.encode import encode_catalogue, load_model
from muxrec.training.study import variants

pytestmark = pytest.mark.slow
DTYPES = ("fp32", "quantised")


@pytest.fixture(scope="module")
def prepared(trained):
    recipe = trained["fp32"]
    snapshot = Snapshot.open(output_folder(recipe) / "dataset")
    return prepare_items(recipe, snapshot, cache=output_folder(recipe) / "cache")


@pytest.fixture
def model(trained, exported, prepared):
    """The exported model in torch, fresh for each test."""
    variant = variants(trained["fp32"])[exported["fp32"].seed]
    return load_model(variant.folder, variant.recipe, prepared)


@pytest.fixture(scope="module")
def tower(exported):
    return Bundle.open(exported["fp32"].folder).tower()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_graph_gives_what_torch_gives(dtype, exported):
    parity = exported[dtype].parity
    assert parity.items == 120
    # float32 sums in another order; the recipe allows 1e-4.
    assert parity.max_abs_error < 2e-6
    assert parity.same_top10 == 1.0


def test_the_bundle_holds_the_vectors_of_the_trained_model(exported, prepared, model):
    bundle = Bundle.open(exported["fp32"].folder)
    vectors, parts = encode_catalogue(model, prepared.arrays)
    np.testing.assert_allclose(bundle.vectors, vectors, atol=2e-6)  # two engines, float32
    np.testing.assert_allclose(bundle.parts, parts, atol=1e-3)  # kept in float16
    assert bundle.modalities == ("text", "attributes", "image", "id")


def test_the_bundle_encodes_raw_items_as_the_catalogue_was(exported, trained):
    bundle = Bundle.open(exported["fp32"].folder)
    table = Snapshot.open(output_folder(trained["fp32"]) / "dataset").items()
    raw = table.select(["item_id", "title", "genres", "year", "look", "picture"]).to_pylist()
    vectors, _ = bundle.tower().encode(bundle.encoder().encode_items(raw))
    np.testing.assert_allclose(vectors, bundle.vectors, atol=2e-6)  # other batch sizes


def test_an_item_of_which_nothing_is_known_has_the_zero_vector_and_no_pull(exported):
    bundle = Bundle.open(exported["fp32"].folder)
    at = bundle.item_ids.tolist().index("item-5")
    assert not bundle.vectors[at].any()
    assert not bundle.scores[at].any()


def test_neighbours_of_warm_items_share_their_cluster(exported):
    """Trained for three epochs on twelve clusters that every modality tells."""
    bundle = Bundle.open(exported["fp32"].folder)
    cluster = np.array([int(item.split("-")[1]) // 10 for item in bundle.item_ids])
    share = (cluster[bundle.neighbours[:, :5]] == cluster[:, None]).mean()
    assert share > 0.8  # by chance 0.08


def test_the_graph_has_no_operation_that_exports_wrong_or_slow(exported):
    model = onnx.load(exported["fp32"].folder / "item_tower.onnx")
    operations = Counter(node.op_type for node in model.graph.node)
    # int64 modulo and division export silently wrong, a bag's loop takes 121 ms per 1,000 bags.
    assert not operations.keys() & {"Mod", "Loop", "Scan", "If", "NonZero"}
    assert operations["BitwiseXor"] > 0
    assert [entry.domain for entry in model.opset_import] == [""]
    assert model.opset_import[0].version == 20
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()


def test_the_graph_names_its_inputs_and_its_batch(exported, trained):
    model = onnx.load(exported["fp32"].folder / "item_tower.onnx")
    shapes = {
        entry.name: [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]
        for entry in [*model.graph.input, *model.graph.output]
    }
    assert shapes["words.ids"] == shapes["words.mask"] == ["batch", 32]
    assert shapes["pixels.values"] == ["batch", 3, 16, 16]
    assert shapes["look.present"] == ["batch"]
    assert shapes["vector"] == ["batch", 16]
    assert shapes["parts"] == ["batch", 4, 16]


def test_external_weights_are_in_the_manifest_and_damage_to_them_is_refused(exported, tmp_path):
    import shutil

    folder = tmp_path / exported["quantised"].folder.name
    shutil.copytree(exported["quantised"].folder, folder)
    assert "item_tower.onnx.data" in Bundle.open(folder).manifest["files"]
    data = bytearray((folder / "item_tower.onnx.data").read_bytes())
    data[100] ^= 1
    (folder / "item_tower.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match=r"item_tower\.onnx\.data"):
        Bundle.open(folder)


def test_quantised_tables_cost_little_and_the_loss_is_measured(exported):
    loss = exported["quantised"].quantisation
    assert 0 < loss.max_abs_error < 0.05
    assert loss.same_top10 > 0.5
    assert exported["fp32"].quantisation is None
    metrics = Bundle.open(exported["quantised"].folder).manifest["metrics"]
    assert metrics["quantisation"]["max_abs_error"] == loss.max_abs_error


def test_the_graph_holds_the_tables_in_their_formats(exported, trained, prepared):
    folder = exported["quantised"].folder
    arrays = {
        entry.name: numpy_helper.to_array(entry)
        for entry in onnx.load(folder / "item_tower.onnx").graph.initializer
    }
    variant = variants(trained["quantised"])[0]
    model = load_model(variant.folder, variant.recipe, prepared)
    for at, table in enumerate(tables_of(model).table_groups()):
        mine = [array for name, array in arrays.items() if name.startswith(f"groups.{at}.rows.")]
        served = served_rows(table)
        assert sum(array.nbytes for array in mine) == served.served_bytes
        exact = ROW_FORMATS["fp32"].of(table.local().weight)
        assert served.served_bytes < 0.6 * exact.served_bytes


def test_a_table_that_its_format_cannot_hold_is_refused_by_name(model):
    group = tables_of(model).table_groups()[0]
    group.group = dataclasses.replace(
        group.group, table=dataclasses.replace(group.group.table, serve="int4", serve_group=5)
    )
    with pytest.raises(BundleError, match=r"table items\.item cannot be served: .* got 5"):
        served_model(model)


def test_a_graph_of_other_weights_is_refused_with_the_numbers(model, tower, prepared, trained):
    with torch.no_grad():
        model.tower.head.weight[0, 0] += 0.1
    with pytest.raises(BundleError, match=r"largest error .* \(at most 0\.0001\), same top 10"):
        prove_parity(model, tower, prepared.arrays, limits=trained["fp32"].export)


def test_a_difference_that_only_unknown_ids_show_is_refused(model, tower, prepared, trained):
    """Rows that no catalogue item reads, but extreme ids do."""
    group = next(g for g in tables_of(model).table_groups() if g.group.table.name == "shared")

    def rows_of(ids):
        return {
            int(row)
            for name, probes in (("words", 3), ("genres", 1))
            for probe in range(probes)
            for row in hash_rows(ids[name], name=name, probe=probe, rows=509)
        }

    used = rows_of({name: prepared.arrays.sparse[name].ids for name in ("words", "genres")})
    strange = rows_of({"words": STRANGE_IDS, "genres": STRANGE_IDS}) - used
    assert strange
    with torch.no_grad():
        group.weight[sorted(strange)] += 1
    with pytest.raises(BundleError, match="extreme and unknown ids"):
        prove_parity(model, tower, prepared.arrays, limits=trained["fp32"].export)


def test_strange_inputs_hold_what_their_names_say(prepared, model):
    found = strange_inputs(prepared.arrays, model.tower.features)
    assert len(found["a batch of 257"]) == 257
    nothing = found["items that lack everything"]
    assert not any(bags.ids.size for bags in nothing.sparse.values())
    assert not any(dense.present.any() for dense in nothing.dense.values())
    strange = found["extreme and unknown ids"].sparse
    assert all(set(STRANGE_IDS) == set(bags.ids) for bags in strange.values())
    assert {*strange} == {"item", "words", "genres", "year"}


def test_same_top_sees_a_changed_neighbour_and_forgives_a_tie():
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 1, 1, 2, 2]]
    assert same_top(vectors, vectors[:, ::-1].copy(), k=1) == 1.0
    assert same_top(vectors, np.roll(vectors, 1, axis=0), k=1) < 0.5


def test_the_best_seed_by_validation_is_exported_unless_one_is_named(exported, trained):
    done = [json.loads((v.folder / "done.json").read_text()) for v in variants(trained["fp32"])]
    best = max(range(2), key=lambda seed: done[seed]["validation"])
    assert exported["fp32"].seed == best
    bundle = Bundle.open(exported["fp32"].folder)
    assert bundle.manifest["lineage"]["seed"] == best
    assert bundle.manifest["lineage"]["dataset"] == "dt=2020-01-01/run=abcdefabcdef"
    assert bundle.manifest["metrics"]["validation"] == done[best]["validation"]


def test_pictures_and_columns_of_the_catalogue_are_in_the_bundle(exported, trained):
    bundle = Bundle.open(exported["fp32"].folder)
    table = Snapshot.open(output_folder(trained["fp32"]) / "dataset").items()
    for at, path in enumerate(table["picture"].to_pylist()):
        assert bundle.image(at) == (None if path is None else Path(path).read_bytes())
    names = ["item_id", "item_key", "is_cold", "train_events", "title", "year", "genres"]
    assert bundle.items.column_names == names


def test_a_bundle_does_not_say_where_it_was_made(exported, trained):
    folder = exported["fp32"].folder
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.output is None
    assert recipe_hash(recipe) == recipe_hash(trained["fp32"])
    assert Bundle.open(folder).manifest["filters"] == ["year", "genres"]
    output = str(trained["fp32"].output).encode()
    for name in ("recipe.yaml", "manifest.json", "features.json", "item_tower.onnx"):
        assert output not in (folder / name).read_bytes()


def test_pictures_that_are_none_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO", "muxrec")
    (tmp_path / "x.svg").write_text("<svg onload='alert(1)'/>")
    values = [None, "", str(tmp_path / "x.svg"), str(tmp_path / "gone.png"), b"\x89PNG\r\n\x1a\nx"]
    assert list(picture_files(values)) == [None, None, None, None, b"\x89PNG\r\n\x1a\nx"]
    assert "found=1 missing=2 refused=1 items=5" in caplog.text
    with pytest.raises(DataError, match="got int"):
        list(picture_files([7]))


def test_what_is_not_trained_cannot_be_exported(trained):
    with pytest.raises(TrainingError, match="seed 7"):
        export_run(trained["fp32"], seed=7)
    other = dataclasses.replace(
        trained["fp32"], train=dataclasses.replace(trained["fp32"].train, lr=9.0)
    )
    with pytest.raises(TrainingError, match="no finished training of this recipe"):
        export_run(other)


@pytest.mark.parametrize("key", ["display", "filters", "image"])
def test_a_column_that_the_catalogue_lacks_is_refused_before_the_export(key, trained):
    value = "colour" if key == "image" else ("colour",)
    export = dataclasses.replace(trained["fp32"].export, **{key: value})
    with pytest.raises(DataError, match=f"export.{key} names colour"):
        export_run(dataclasses.replace(trained["fp32"], export=export))


def run_index(recipe, *options):
    path = output_folder(recipe) / "given.yaml"
    path.write_text(dump_recipe(recipe))
    done = CliRunner().invoke(command.index, [str(path), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_muxrec_index_makes_a_new_bundle_and_leaves_the_old_one(exported, trained):
    recipe, old = trained["fp32"], Bundle.open(exported["fp32"].folder)
    assert "nothing to do" in run_index(recipe, "--bundle", str(old.folder))
    said = run_index(
        recipe, "--bundle", str(old.folder), "--set", "index.m=4", "--set", "index.neighbours=5"
    )
    new = Bundle.open(output_folder(recipe) / "bundles")
    assert str(new.folder) in said
    assert new.folder != old.folder
    assert (new.neighbours.shape, old.neighbours.shape) == ((120, 5), (120, 15))
    np.testing.assert_array_equal(new.neighbours, old.neighbours[:, :5])
    assert new.manifest["index"]["m"] == 4
    assert new.manifest["space"] == old.manifest["space"]
    assert new.manifest["recipe_hash"] != old.manifest["recipe_hash"]
    Bundle.open(old.folder)


def test_served_model_is_the_model_itself_without_quantised_tables(model):
    assert served_model(model) is model


def test_a_tower_session_refuses_the_features_of_another_recipe(exported):
    features = Bundle.open(exported["fp32"].folder).features
    path = exported["fp32"].folder / "item_tower.onnx"
    with pytest.raises(BundleError, match="other features"):
        TowerSession(path, features=features[:-1])
