import dataclasses
import json
import logging
import subprocess
import sys
import time

import pytest

from muxrec.recipe.model import Tracking
from muxrec.tracking import RunLogger, run_id_of
from muxrec.tracking.run_logger import SPOOL_FILE
from muxrec.tracking.server import connect


def test_a_run_keeps_params_metrics_artifact_and_dataset(recipe, tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text("{}\n")
    with RunLogger(recipe, folder=tmp_path / "seed=0", name="main") as run:
        run.params({"lr": 0.1, "tower": "gate"})
        for step in range(2500):
            run.metrics(step, {"loss": 1 / (step + 1), "recall@10": 0.5})
        run.artifact(history)
        run.dataset(digest="ab" * 32, folder=tmp_path)
    client = connect(recipe)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"lr": "0.1", "tower": "gate"}
    losses = client.get_metric_history(run.run_id, "loss")
    assert [m.value for m in sorted(losses, key=lambda m: m.step)] == [
        1 / (s + 1) for s in range(2500)
    ]
    assert stored.data.metrics["recall_at_10"] == 0.5
    assert [a.path for a in client.list_artifacts(run.run_id)] == ["history.jsonl"]
    assert stored.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
    assert not (tmp_path / "seed=0" / SPOOL_FILE).exists()


def test_a_failed_block_ends_the_run_as_failed(recipe, tmp_path):
    with pytest.raises(ZeroDivisionError), RunLogger(recipe, folder=tmp_path, name="main") as run:
        run.metrics(0, {"loss": 1 / 0})
    assert connect(recipe).get_run(run.run_id).info.status == "FAILED"


def test_opening_the_folder_again_continues_the_same_run(recipe, tmp_path):
    with RunLogger(recipe, folder=tmp_path, name="main") as first:
        first.metrics(0, {"loss": 2.0})
    with RunLogger(recipe, folder=tmp_path, name="main") as second:
        second.metrics(1, {"loss": 1.0})
    assert second.run_id == first.run_id == run_id_of(tmp_path)
    assert len(connect(recipe).get_metric_history(first.run_id, "loss")) == 2


def test_a_server_that_is_down_costs_one_warning_and_loses_nothing(
    away_recipe, recipe, tmp_path, caplog
):
    folder = tmp_path / "seed=0"
    begin = time.monotonic()
    caplog.set_level(logging.WARNING, "muxrec")
    with RunLogger(away_recipe, folder=folder, name="a") as run:
        run.params({"lr": 0.1})
        for step in range(50):
            run.metrics(step, {"loss": float(step)})
    assert time.monotonic() - begin < 20  # two attempts with one retry each; the default is 248 s
    warnings = [r.getMessage() for r in caplog.records if "mlflow_away" in r.getMessage()]
    assert len(warnings) == 1
    assert away_recipe.tracking.uri in warnings[0]
    assert run.run_id is None
    assert run_id_of(folder) is None
    with RunLogger(recipe, folder=folder, name="a") as later:
        pass
    assert len(connect(recipe).get_metric_history(later.run_id, "loss")) == 50
    assert connect(recipe).get_run(later.run_id).data.params == {"lr": "0.1"}


def test_a_record_that_mlflow_refuses_costs_only_itself(recipe, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "muxrec")
    with RunLogger(recipe, folder=tmp_path, name="a") as run:
        run.metrics(0, {"what is:this;": 1.0, "loss": 3.0})
        run.metrics(1, {"loss": 2.0})
        run.artifact(tmp_path / "never_written.txt")
        run.params({"lr": 1})
    stored = connect(recipe).get_run(run.run_id)
    assert stored.data.metrics["loss"] == 2.0
    assert stored.data.params == {"lr": "1"}
    refused = [r.getMessage() for r in caplog.records if "record_refused" in r.getMessage()]
    assert len(refused) == 2


def test_a_torn_spool_line_is_reported_and_the_others_are_sent(recipe, tmp_path, caplog):
    record = {"metrics": {"loss": 1.0}, "step": 0, "time_ms": 1}
    (tmp_path / SPOOL_FILE).write_text(json.dumps(record) + "\n" + json.dumps(record)[:20])
    caplog.set_level(logging.WARNING, "muxrec")
    with RunLogger(recipe, folder=tmp_path, name="a") as run:
        pass
    assert "spool_line_torn" in caplog.text
    assert connect(recipe).get_run(run.run_id).data.metrics == {"loss": 1.0}


def test_importing_the_room_does_not_import_mlflow():
    code = "import sys, muxrec.tracking; sys.exit(bool({'mlflow', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_of_another_server_is_not_continued(recipe, tmp_path, empty_database):
    with RunLogger(recipe, folder=tmp_path / "a", name="main") as first:
        pass
    other = tmp_path / "other.db"
    other.write_bytes(empty_database.read_bytes())
    moved = dataclasses.replace(recipe, tracking=Tracking(uri=f"sqlite:///{other}"))
    with RunLogger(moved, folder=tmp_path / "a", name="main") as second:
        pass
    assert second.run_id != first.run_id
