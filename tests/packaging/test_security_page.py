"""`docs/security.md` tells the truth: every check has its line, every test named there is there."""

from __future__ import annotations

import re

from tests.packaging.test_faults_page import ROOT, functions, named

PAGE = ROOT / "docs" / "security.md"
CHECKS = {*range(1, 14), 19, 20, 21, 23, 24, 25, 26}
"""Those that one daemon on one machine can be held to. Whoever adds one adds it here."""
BAD_INPUT = {
    *(
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        10,
        12,
        13,
        14,
        15,
        17,
        18,
        19,
        20,
        21,
        22,
        23,
        25,
        26,
        28,
        29,
        30,
        31,
        32,
        33,
        34,
        36,
    ),
    *(38, 39, 41, 42, 43, 45, 47, 48, 49, 51, 53, 55, 56, 57, 58, 59, 60, 61, 63, 64, 66, 69, 70),
}
"""Rows of the catalogue of bad input."""
NOT_THERE = {61, 63}
"""Cookies and webhooks: the page says that there are none."""


def test_every_check_has_its_line() -> None:
    """With a test, or with one sentence that says why there is none."""
    rows = re.findall(r"^\| P(\d\d) [^|]*\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert {int(number) for number, _ in rows} == CHECKS
    assert [number for number, text in rows if "`" not in text and "cannot be: " not in text] == []


def test_every_test_that_the_page_names_is_there() -> None:
    missing = [
        f"{file.relative_to(ROOT)}::{function}"
        for file, function in named(PAGE)
        if not file.exists() or (function is not None and function not in functions(file))
    ]
    assert len(named(PAGE)) > len(CHECKS)
    assert missing == []


def test_every_row_of_bad_input_has_a_test_with_its_number() -> None:
    """In the name, the docstring or the table of a test."""
    found: set[int] = set()
    for file in (ROOT / "tests").rglob("*.py"):
        if file.name != "test_security_page.py":
            found |= {int(number) for number in re.findall(r"\b(?:B|test_b)(\d\d)(?=\b|_)", file.read_text())}
    assert BAD_INPUT - found == NOT_THERE
