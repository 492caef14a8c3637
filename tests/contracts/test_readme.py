"""What the README tells a reader to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from muxrec.bench.command import BENCHES
from muxrec.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(text: str) -> list[str]:
    """Lines of shell blocks, and inline code that begins with one of our programs."""
    fenced = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    inline = re.findall(r"`((?:muxrec|make) [^`]+)`", text)
    return [" ".join(code.split()) for code in [*fenced, *inline] if code.strip()]


CODE = [(page.name, code) for page in PAGES for code in blocks(page.read_text(encoding="utf-8"))]


def test_there_is_something_to_check() -> None:
    assert len(CODE) > 10


@pytest.mark.parametrize(("page", "code"), CODE)
def test_a_command_in_the_documentation_exists(page: str, code: str) -> None:
    words = shlex.split(code, comments=True)
    if words[0] == "torchrun":
        words = ["muxrec", *words[words.index("muxrec.cli") + 1 :]]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        goals = re.findall(r"^([a-z]+):", makefile, re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in goals] == []
    elif words[0] == "muxrec":
        names = {*COMMANDS, "--help"}
        assert words[1].rstrip(",") in names, f"{page}: {code}"
        if words[1] == "bench" and len(words) > 2:
            assert words[2] in BENCHES
        recipes = [word for word in words if word.startswith("recipes/")]
        assert all((ROOT / path).is_file() for path in recipes)


def test_every_shipped_recipe_of_the_repository_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "recipes").glob("*.yaml") if p.name not in text] == []


def test_every_folder_in_the_table_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([a-z]+)/`", text, re.MULTILINE)
    assert named
    assert [name for name in named if not (ROOT / name).is_dir()] == []
