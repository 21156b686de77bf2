"""P25: what a job service must not have in its source, whatever a linter was told to pass over."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "yaml", "telnetlib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "mktemp", "system", "popen"}
MODULES = sorted((ROOT / "jobsvc").rglob("*.py"))


def found_in(tree: ast.AST) -> set[str]:
    """What of the forbidden stands in a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_IMPORTS
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & FORBIDDEN_IMPORTS
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            plain = isinstance(node.func, ast.Name) or name in {"mktemp", "system", "popen"}
            if name in FORBIDDEN_CALLS and plain:
                found.add(name)
            if any(word.arg == "shell" and getattr(word.value, "value", None) for word in node.keywords):
                found.add("shell=True")
    return found


def test_what_may_not_stand_in_the_source() -> None:
    """No unpickling, no evaluation of text, no shell, no name of a temporary file that somebody can foresee."""
    found = {
        str(path.relative_to(ROOT)): names
        for path in MODULES
        if (names := found_in(ast.parse(path.read_text())))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from yaml import load", "eval('1')", "subprocess.run('x', shell=True)", "os.system('x')",
     "tempfile.mktemp()"],
)  # fmt: skip
def test_the_check_finds_each(text: str) -> None:
    assert found_in(ast.parse(text))
