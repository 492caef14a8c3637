"""Log lines: one event, one line, and apart again."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxrec.log import event, install_handler


def test_an_event_is_one_readable_line() -> None:
    line = event("epoch", n=3, loss=0.123456, folder="runs/demo", note="two words")
    assert line == 'epoch n=3 loss=0.1235 folder=runs/demo note="two words"'


@given(st.text())
def test_any_text_stays_on_one_line_and_can_be_read_back(text: str) -> None:
    value = event("e", text=text).removeprefix("e text=")
    assert len(value.splitlines()) == 1
    assert (json.loads(value) if value.startswith('"') else value) == text


def test_the_handler_is_replaced_and_not_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        install_handler()
        install_handler(level=logging.WARNING)
        logging.getLogger("muxrec.x").info("quiet")
        logging.getLogger("muxrec.x").warning("heard n=1")
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"\S+ \S+ W muxrec\.x heard n=1", line)
    finally:
        root.handlers[:] = before
        logging.getLogger("muxrec").setLevel(logging.NOTSET)
