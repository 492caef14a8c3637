import shutil
import socket
from pathlib import Path

import pytest

from muxrec.recipe.model import Data, Recipe, Source, Tracking
from muxrec.spec.features import FeatureSpec


def make_recipe(output: Path, **changes) -> Recipe:
    features = (
        FeatureSpec("plot", "vector", ("plot",), "text", width=16),
        FeatureSpec("poster", "vector", ("poster",), "image", width=16),
    )
    data = Data(Source("generic"))
    return Recipe("tiny", data, features, output=str(output), **changes)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A migrated MLflow database: its first start costs seconds, a copy costs nothing."""
    from muxrec.tracking.server import connect

    folder = tmp_path_factory.mktemp("database")
    connect(make_recipe(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def recipe(tmp_path, empty_database) -> Recipe:
    output = tmp_path / "run"
    output.mkdir()
    shutil.copy(empty_database, output / "mlflow.db")
    return make_recipe(output)


@pytest.fixture
def closed_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def away_recipe(tmp_path, closed_port) -> Recipe:
    """A recipe whose MLflow server is down."""
    tracking = Tracking(uri=f"http://127.0.0.1:{closed_port}")
    return make_recipe(tmp_path / "run", tracking=tracking)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory) -> Path:
    """A small published bundle; tests copy it before they harm it."""
    from muxrec.bundle.sample import sample_bundle

    return sample_bundle(tmp_path_factory.mktemp("bundles"))
