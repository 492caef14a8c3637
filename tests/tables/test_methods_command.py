"""``muxrec methods`` lists what the dict of methods holds."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from muxrec.cli import cli
from muxrec.spec.features import TableSpec
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.tables.methods import METHODS


def output_of(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["--quiet", "methods", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def facts() -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads(output_of("--json"))}


def test_every_method_has_a_line_of_aligned_columns() -> None:
    head, *lines = output_of().split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)
    assert max(map(len, [head, *lines])) <= 160
    for column in ("paper", "ids", "stages", "size"):
        at = head.index(column)
        assert all(line[at - 2 : at] == "  " and line[at] != " " for line in lines)


def test_the_facts_are_those_of_the_methods(facts) -> None:
    assert list(facts) == list(METHODS)
    for name, entry in facts.items():
        assert entry["title"] == METHODS[name].title
        assert entry["paper"] == METHODS[name].source
        stages = METHODS[name].stages_of(TableSpec("table", name, 16))
        assert entry["stages"] == [stage.name for stage in stages]
        assert (entry["size"] is None) is (METHOD_SPECS[name].free is None)


def test_bytes_per_id_follow_from_width_and_budget(facts) -> None:
    # Sixteen numbers of four bytes, Adagrad's number per row; a tenth of both with a budget.
    assert (facts["full"]["training"], facts["full"]["serving"]) == (68.0, 64.0)
    assert facts["unified"]["serving"] == 6.4
    assert facts["unified"]["training"] == pytest.approx(6.8)
    for name, entry in facts.items():
        limit = 6.4 if METHOD_SPECS[name].free else 64.0
        assert 3.0 < entry["serving"] <= limit
        assert entry["is_found"] is (name in ("autodim", "optembed"))
