"""`docs/faults.md` tells the truth: every fault of one node has its line, every test named there is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "faults.md", ROOT / "README.md")
ONE_NODE = {
    *(1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16),
    *(17, 18, 19, 20, 21, 23, 25, 26, 27, 28, 29, 31),
    *(32, 34, 35, 36, 37, 39, 41),
    *(54, 55, 56, 57, 59, 61, 62),
    *(63, 65, 66, 68, 71, 72, 73),
}
"""The faults of the groups A, B, C, E and F. Whoever adds one adds it here."""


def lines() -> dict[int, str]:
    """Number of the fault → what stands behind it."""
    rows = re.findall(r"^\| F(\d\d) [^|]*\|([^|]*)\|$", PAGES[0].read_text(), re.MULTILINE)
    return {int(number): text for number, text in rows}


def named(page: Path) -> list[tuple[Path, str | None]]:
    """(file, function or None) of every test that a page names; files without a folder are in `tests/faults`."""
    found = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)(?:::(\w+))?`", page.read_text())
    return [
        (ROOT / (file if "/" in file else f"tests/faults/{file}"), function or None)
        for file, function in found
    ]


def functions(file: Path) -> set[str]:
    """Names of the tests in a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_every_fault_of_one_node_has_its_line() -> None:
    """With a test, or with one sentence that says why there is none."""
    found = lines()
    assert set(found) == ONE_NODE
    assert [number for number, text in found.items() if "`" not in text and "cannot be: " not in text] == []


def test_every_test_that_a_page_names_is_there() -> None:
    """In the list of faults and in the README's promise."""
    missing = [
        f"{file.relative_to(ROOT)}::{function}"
        for page in PAGES
        for file, function in named(page)
        if not file.exists() or (function is not None and function not in functions(file))
    ]
    assert len(named(PAGES[0])) > len(ONE_NODE)
    assert missing == []
