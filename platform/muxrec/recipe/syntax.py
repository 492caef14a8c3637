"""The YAML that recipes are written in: YAML 1.2's scalars, no aliases, no repeated keys.

PyYAML follows YAML 1.1, where ``2e-3`` is a string, ``no`` is false and ``2018-09-24`` is a date.
Reader and writer here share one set of scalar rules, so what is written is read back the same.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

Path_ = tuple[str | int, ...]

_SCALARS = (
    ("null", r"^(?:~|null|Null|NULL|)$", [*"~nN", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", [*"-+0123456789"]),
    (
        "float",
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.nan$",
        [*"-+.0123456789"],
    ),
)


class RecipeLoader(yaml.SafeLoader):
    """A safe loader with YAML 1.2 scalars that refuses aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; an alias would let one override change two places, so none is taken."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are refused: repeat it", problem_mark=mark)
        return super().compose_node(parent, index)


class RecipeDumper(yaml.SafeDumper):
    """The writer that quotes exactly what ``RecipeLoader`` would misread."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML asks so
        """True: a value that stands in two places is written twice."""
        return True


for _name, _pattern, _first in _SCALARS:
    for _side in (RecipeLoader, RecipeDumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)


def parse(text: str) -> tuple[Any, dict[Path_, int], list[tuple[Path_, int, str]]]:
    """Value, line of every path, and faults of a YAML text.

    Returns:
        The value; the line (from 1) of each path below it, where a mapping's entry has the line of
        its key; and ``(path, line, what)`` for every key that stands twice in one mapping.

    Raises:
        yaml.YAMLError: The text is not YAML or holds an alias.
    """
    loader = RecipeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {(): 1}, []
        lines: dict[Path_, int] = {(): node.start_mark.line + 1}
        faults: list[tuple[Path_, int, str]] = []
        _walk(node, (), lines, faults)
        return loader.construct_document(node), lines, faults
    finally:
        loader.dispose()


def _walk(
    node: yaml.Node,
    path: Path_,
    lines: dict[Path_, int],
    faults: list[tuple[Path_, int, str]],
) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[*path, index] = child.start_mark.line + 1
            _walk(child, (*path, index), lines, faults)
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            below, line = (*path, str(key.value)), key.start_mark.line + 1
            if below in lines:
                faults.append((below, line, f"stands twice, first on line {lines[below]}"))
            lines.setdefault(below, line)
            _walk(child, below, lines, faults)


def write(value: Any) -> str:
    """``value`` as YAML text, keys in their order, long strings on one line."""
    return yaml.dump(value, Dumper=RecipeDumper, sort_keys=False, width=2**20, allow_unicode=True)
