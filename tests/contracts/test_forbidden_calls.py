"""No pickle, eval, exec, unsafe YAML or unsafe weights: nothing runs what a file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

BANNED_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BANNED_BUILTINS = {"eval", "exec", "compile", "__import__"}
BANNED_KEYWORDS = {
    "weights_only": False,
    "allow_pickle": True,
    "shell": True,
    "trust_remote_code": True,
}


def offences(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.split(".")[0] in BANNED_IMPORTS)
        elif isinstance(node, ast.Call):
            yield from _call_offences(node)


def _call_offences(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in BANNED_BUILTINS:
        yield node.func.id
    called = ast.unparse(node.func)
    if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        yield called
    if called == "torch.load" and not any(k.arg == "weights_only" for k in node.keywords):
        yield "torch.load without weights_only"
    for keyword in node.keywords:
        banned = BANNED_KEYWORDS.get(keyword.arg or "")
        value = getattr(keyword.value, "value", None)
        if banned is not None and value is banned:
            yield f"{keyword.arg}={banned}"


def test_no_module_runs_what_a_file_says(syntax_trees: dict[str, ast.Module]) -> None:
    found = {module: list(offences(tree)) for module, tree in syntax_trees.items()}
    assert {module: what for module, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import dump",
        "eval('1')",
        "import yaml\nyaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_search_finds_a_planted_call(code: str) -> None:
    assert len(list(offences(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    ["torch.load(path, weights_only=True)", "np.load(path)", "model.eval()", "re.compile('x')"],
)
def test_the_search_lets_a_harmless_call_pass(code: str) -> None:
    assert list(offences(ast.parse(code))) == []
