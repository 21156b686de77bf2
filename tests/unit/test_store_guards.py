"""Every statement that changes a job names the attempt it speaks for, or stands in a short list with its reason.

The statements are found in the source, so that a new one cannot be forgotten here: every text that speaks of an UPDATE
is looked at, whatever table it names, or leaves open. Of which table a text is that says so is asked of SQLite.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobsvc
from jobsvc.model.states import FINAL, STATES, WAITING, State, allowed
from jobsvc.store import marks, tokens
from jobsvc.store import statements as sql
from jobsvc.store.fenced import STEPS_TO
from jobsvc.store.sqlite import SqliteStore

ROOT = Path(jobsvc.__path__[0])
CHANGES = re.compile(r"\bUPDATE\b|\bREPLACE\s+INTO\b", re.IGNORECASE)
"""Also of an UPSERT, of a table that is put in later, of one with another name for it."""

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

ELSEWHERE = {
    "REMEMBER_LAST_NO": sql.REMEMBER_LAST_NO,
    "PUT": tokens.PUT,
    "TOUCH": tokens.TOUCH,
    "_SET": marks._SET,
    "_SET_RANDOM": marks._SET_RANDOM,
    "_FINAL_TRIGGER": None,  # no statement that runs: what it does is tried in `test_store_final`
}
"""Where in the source → a statement that changes rows of another table."""


def speaking_sql() -> Iterator[Path]:
    """The modules that can run SQL: the store's, and whoever else has a connection of SQLite's."""
    for file in sorted(ROOT.rglob("*.py")):
        if file.parent.name == "store" or "sqlite3" in file.read_text():
            yield file


def changes_in(source: str) -> Iterator[str]:
    """The name at module level of every text that changes rows; what stands for people alone is left out."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for statement in tree.body:
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Constant)
                and id(node) not in prose
                and isinstance(node.value, (str, bytes))
                and CHANGES.search(
                    node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                )
            ):
                yield name_of(statement)


def name_of(statement: ast.stmt) -> str:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return str(getattr(statement, "name", f"line {statement.lineno}"))


def changed_tables(statement: str) -> set[str]:
    """Of which tables SQLite would change rows for it."""
    store = SqliteStore()
    store.open()
    told: set[str] = set()

    def look(action: int, table: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_UPDATE and table != "sqlite_master":  # the latter where it uses json_each
            told.add(str(table))
        return sqlite3.SQLITE_OK

    store._db.set_authorizer(look)
    parameters = [None] * (statement.count("?") + 1)
    for number in range(len(parameters), -1, -1):  # `?4` twice is one parameter: so many as it takes
        try:
            store._db.execute(f"EXPLAIN {statement}", parameters[:number]).fetchall()
            break
        except sqlite3.ProgrammingError:
            continue
    store.close()
    return told


def guard(statement: str) -> str:
    """The WHERE of the job's own row, which is the last."""
    return re.split(r"\bWHERE\b", statement, maxsplit=1)[1]


def is_fenced(statement: str) -> bool:
    """Both must hold, and each is compared with what the caller gives."""
    where = guard(statement)
    return " OR " not in where.upper() and all(
        re.search(rf"(\b|\.){column}=(\?\d*|v\.column\d+)(?= |$)", where) for column in ("epoch", "owner")
    )


def guarded_states(statement: str) -> set[State]:
    """The states that the WHERE lets through, all of its conditions together."""
    through: set[State] = set(STATES)
    for listed, single in re.findall(r"\bstate (?:IN \(([^)]*)\))|\bstate='(\w+)'", guard(statement)):
        named = {single} if single else set(re.findall(r"\w+", listed))
        through = {state for state in through if state in named}
    return through


def test_the_source_has_no_other_statement_that_changes_rows() -> None:
    """A new one must be entered here, one that is gone must be taken out; jobs are changed in one module alone."""
    found = {file.name: set(changes_in(file.read_text())) for file in speaking_sql()}
    assert set().union(*found.values()) == EVERY.keys() | ELSEWHERE.keys()
    assert [name for name, places in found.items() if places & EVERY.keys()] == ["statements.py"]


def test_sqlite_says_which_of_them_change_a_job() -> None:
    """Those that are listed as changing jobs do, the others do not."""
    assert {place for place, texts in EVERY.items() if changed_tables(texts[0]) != {"jobs"}} == set()
    others = [text for text in ELSEWHERE.values() if text is not None]
    assert [text for text in others if changed_tables(text) & {"jobs", "chunks", "attempts"}] == []


@pytest.mark.parametrize(
    "source",
    [
        'X = f"UPDATE {table} SET state=?"',
        "X = 'UPDATE ' + TABLE + ' SET state=1'",
        'X = "UPDATE main.jobs SET state=1"',
        "X = 'update \"jobs\" set state=1'",
        'X = "UPDATE OR IGNORE jobs SET state=1"',
        'X = "INSERT INTO jobs (no) VALUES (?) ON CONFLICT (no) DO UPDATE SET state=1"',
        'X = "INSERT OR REPLACE INTO jobs (no) VALUES (?)"',
        'X = b"UPDATE jobs SET state=1"',
        'class X:\n    """What it is."""\n    def f(self, db):\n        db.execute("UPDATE\\n jobs SET state=1")',
    ],
)
def test_no_form_of_a_change_is_overlooked(source: str) -> None:
    """The search itself: names put in later, other spellings, upserts, texts inside classes."""
    assert list(changes_in(source)) == ["X"]


def test_docstrings_are_not_taken_for_statements() -> None:
    assert (
        list(changes_in('"""An UPDATE of jobs."""\ndef f():\n    """UPDATE jobs."""\nX = 1\n"""UPDATE."""'))
        == []
    )


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
    assert not is_fenced(whole.replace(" AND epoch=?", " AND epoch=epoch"))
    assert not is_fenced(f"{whole} OR no=?")
    assert not is_fenced(whole.replace(" AND epoch=?", ""))
    assert not is_fenced(whole.replace(" AND owner=?", ""))
    assert guarded_states(re.sub(r" AND state IN \(.*?\)", "", whole)) == set(STATES)
