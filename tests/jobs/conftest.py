"""One Spark session per test run, and small raw data whose right answers are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from muxrec.recipe.model import Data, Pairs, Recipe, Source, Split, TableFile
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec_jobs.session import start_session

DAY = 86_400
START = 1_500_000_000 // DAY * DAY


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = start_session(memory="1g")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def public_data() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("MUXREC_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}: set MUXREC_DATA")
    return folder


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe over csv texts written to the test's folder; keywords go to ``Data``."""

    def make(events: str, items: str | None = None, *, name: str = "small", **data) -> Recipe:
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        events_file, items_file = folder / f"{name}_events.csv", folder / f"{name}_items.csv"
        events_file.write_text(events, encoding="utf-8")
        catalogue = None
        if items is not None:
            items_file.write_text(items, encoding="utf-8")
            catalogue = TableFile(str(items_file), "csv")
        source = Source("generic", interactions=TableFile(str(events_file), "csv"), items=catalogue)
        defaults = {"split": Split(0.6, 0.2), "pairs": Pairs(window_days=0.5)}
        return Recipe(
            name,
            Data(source, **(defaults | data)),
            (FeatureSpec("item", "id", ("item_id",), "id", table="items"),),
            (TableSpec("items", "full", 8),),
            output=str(tmp_path / "out"),
        )

    return make


@pytest.fixture(scope="session")
def weekly_events() -> str:
    """Ten days of twelve users who each see a trio of items an hour apart, five trios by day."""
    rows = ["user_id,item_id,timestamp,event_type,weight"]
    for day in range(10):
        for user in range(12):
            for place in range(3):
                item = 3 * ((user + day) % 5) + place
                time = START + day * DAY + user * 60 + place * 3600
                rows.append(f"u{user},{item},{time},view,{1 + place}")
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="session")
def weekly_items() -> str:
    """The fifteen items of ``weekly_events`` and one that nobody sees."""
    rows = [f'{item},"Item {item}",{item % 4},"[{item + 1}, {item + 2}]"' for item in range(16)]
    return "\n".join(["item_id,title,shelf,related", *rows]) + "\n"


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """A MovieLens folder of three films with everything that may lie beside them."""
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,1000\n2,20,0.5,2000\n",
        "movies.csv": (
            "movieId,title,genres\n"
            '10,"Silence, The (1999)",Drama|War\n'
            "20,Nameless,(no genres listed)\n"
            "30,Series (2006-2007),Comedy\n"
        ),
        "tags.csv": (
            "userId,movieId,tag,timestamp\n"
            "1,10,Quiet,500\n2,10, quiet ,600\n3,10,army,700\n"
            "4,10,later,1001\n4,20,only later,1500\n"
        ),
        "links.csv": "movieId,imdbId,tmdbId\n10,0000010,1\n20,0000020,2\n30,0000030,\n",
        "omdb_metadata.jsonl": (
            '{"imdbId": "0000010", "Director": "A One, B Two", "Actors": "N/A", "Plot": "Guns."}\n'
            '{"imdbId": "0000020", "Director": "N/A", "Actors": "C Three", "Plot": "N/A"}\n'
        ),
        "imdb5000_metadata.csv": (
            "director_name,actor_1_name,actor_2_name,actor_3_name,plot_keywords,movie_imdb_link\n"
            "Other,X,,Z,war|peace,http://www.imdb.com/title/tt0000010/?ref\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "10.jpg").write_bytes(b"picture")
    return tmp_path
