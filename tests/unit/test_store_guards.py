"""Every statement that changes a job names the attempt it speaks for, or stands in a short list with its reason.

The statements are found in the source of the store, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobsvc.store
from jobsvc.model.states import FINAL, STATES, WAITING, State, allowed
from jobsvc.store import statements as sql
from jobsvc.store.fenced import STEPS_TO

SOURCES = sorted(Path(jobsvc.store.__path__[0]).glob("*.py"))
CHANGES = re.compile(r"\bUPDATE\s+(OR\s+\w+\s+)?jobs\b|\bREPLACE\s+INTO\s+jobs\b", re.IGNORECASE)

FENCED = {
    "_fenced": [sql.settle(to, rows) for to in sorted(FINAL) for rows in (1, 4)]
    + [sql.step(to, rows) for to in sorted(STEPS_TO) for rows in (1, 4)],
    "settle_alike": [sql.settle_alike(to, rows) for to in sorted(FINAL) for rows in (1, 4)],
    "PROGRESS": [sql.PROGRESS],
}
"""Where in the source → the statements made there, with epoch and owner in their WHERE."""

MOVES: tuple[State, ...] = ("cancelled", "queued", "held")
UNFENCED = {
    "CLAIM": ("queued → running: makes the epoch", [sql.CLAIM]),
    "move": ("waiting, by operator or client", [sql.move(to, WAITING) for to in MOVES]),
    "change": ("waiting, other fields by a client", [sql.change(None), sql.change("queued")]),
    "WAKE": ("scheduled or retrying → queued: their time has come", [sql.WAKE]),
    "CANCELLED_ORPHANS": (
        "retrying → cancelled: it was asked, and the thread ended",
        [sql.CANCELLED_ORPHANS],
    ),
    "SHIFT_RETRIES": ("retrying, due at another moment: the wall clock was set", [sql.SHIFT_RETRIES]),
    "SET_BACK": ("retrying, due earlier: the wall clock was set back between two daemons", [sql.SET_BACK]),
    "EXPIRE": ("waiting → expired", [sql.EXPIRE]),
    "ORPHANS_GONE": (
        "retrying, due earlier: the thread it waited for ended with its daemon",
        [sql.ORPHANS_GONE],
    ),
}
"""Where in the source → which transition it is that no attempt makes, and the statements made there."""

EVERY = {**FENCED, **{place: texts for place, (_, texts) in UNFENCED.items()}}


def places() -> Iterator[tuple[str, str]]:
    """(file, name at module level) of every text in the store's source that changes rows of jobs."""
    for file in SOURCES:
        for statement in ast.parse(file.read_text()).body:
            for node in ast.walk(statement):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and CHANGES.search(node.value)
                ):
                    yield file.name, name_of(statement)


def name_of(statement: ast.stmt) -> str:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return str(getattr(statement, "name", f"line {statement.lineno}"))


def guard(statement: str) -> str:
    """The WHERE of the job's own row, which is the last."""
    return re.split(r"\bWHERE\b", statement, maxsplit=1)[1]


def is_fenced(statement: str) -> bool:
    return all(re.search(rf"(\b|\.){column}=", guard(statement)) for column in ("epoch", "owner"))


def guarded_states(statement: str) -> set[State]:
    """The states that the WHERE lets through, all of its conditions together."""
    through: set[State] = set(STATES)
    for listed, single in re.findall(r"\bstate (?:IN \(([^)]*)\))|\bstate='(\w+)'", guard(statement)):
        named = {single} if single else set(re.findall(r"\w+", listed))
        through = {state for state in through if state in named}
    return through


def test_the_source_has_no_other_statement_that_changes_a_job() -> None:
    """A new one must be entered here, one that is gone must be taken out."""
    assert {name for _, name in places()} == set(EVERY)
    assert {file for file, _ in places()} == {"statements.py"}


@pytest.mark.parametrize("place", sorted(FENCED))
def test_a_write_of_an_attempt_names_its_epoch_and_owner(place: str) -> None:
    """In every form in which the statement is made."""
    assert [text for text in FENCED[place] if not is_fenced(text)] == []


@pytest.mark.parametrize("place", sorted(UNFENCED))
def test_the_exceptions_are_exceptions(place: str) -> None:
    """Who stands in the list without need is to be taken out of it."""
    assert [text for text in UNFENCED[place][1] if is_fenced(text)] == []


@pytest.mark.parametrize("place", sorted(EVERY))
def test_each_is_guarded_by_states_of_the_table(place: str) -> None:
    """No final job is let through, and none for which the table of states has no such way."""
    for text in EVERY[place]:
        through = guarded_states(text)
        assert not through & FINAL, text
        for to in STATES:
            if f"SET state='{to}'" in text:
                assert all(allowed(frm, to) for frm in through), text


def test_a_forgotten_epoch_would_be_found() -> None:
    """The check itself can fail: of the outcome's statement, without the epoch, without the owner, without states."""
    whole = sql.settle("succeeded", 1)
    assert is_fenced(whole)
    assert not is_fenced(whole.replace(" AND epoch=?", ""))
    assert not is_fenced(whole.replace(" AND owner=?", ""))
    assert guarded_states(re.sub(r" AND state IN \(.*?\)", "", whole)) == set(STATES)
