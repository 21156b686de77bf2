"""F2: what the writer holds: its connection, and what it remembers so as not to ask for it.

Belongs to one thread. Every write of the store is a function on a `Session`, inside a transaction that `sqlite` opens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import methodcaller
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from jobsvc.model.job import Job
from jobsvc.ports import WriteRefusal
from jobsvc.store import statements as sql
from jobsvc.store.rows import Policies

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

FRESH_MAX_JOBS: Final = 32_768
"""Queued jobs remembered: 20 MB when a client has sent so many at once, nothing when workers keep up."""
FRESH_ARGS_MAX_BYTES: Final = 512
"""Jobs with longer arguments are read again when they are claimed: it is they that would need much memory."""

SHAPES_MAX: Final = 8
"""So many kinds of rows in one group always have a statement each…"""
SHAPE_ROWS_MIN: Final = 8
"""…of more kinds only those with so many rows: a statement of its own costs as much as five rows of the general one."""

decode_nos = msgspec.json.Decoder(list[int]).decode


_copy: Callable[[Job], Job] = methodcaller("__copy__")  # half the time of copy.copy


class Short(Exception):
    """A fence refused part of a batch: the group is rolled back and done again one write at a time."""


class Refused(NamedTuple):
    """A write of an attempt that its fence has refused.

    Attributes:
        what: `append`, `settle` or `step`.
        job_id: None when there is no such job any more.
        no, epoch, owner: of the attempt that wanted to write.
    """

    what: str
    job_id: bytes | None
    no: int
    epoch: int
    owner: str
    reason: WriteRefusal


class Fresh:
    """Queued jobs as they were submitted, until they are claimed: what was just written need not be read again.

    A mere copy of rows: whoever changes or removes such a row must drop it here, and a rollback drops all.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}

    def keep(self, jobs: Sequence[Job]) -> None:
        """Remember copies, while there is room. The caller goes on owning its own."""
        room = FRESH_MAX_JOBS - len(self._jobs)
        if room > 0:
            self._jobs.update((job.no, _copy(job)) for job in jobs[:room])

    def take(self, nos: Sequence[int]) -> list[Job | None]:
        """The jobs with these numbers, now the caller's; None for what is not here."""
        pop = self._jobs.pop
        return [pop(no, None) for no in nos]

    def clear(self) -> None:
        """Nothing is certain any more."""
        self._jobs.clear()


class Session:
    """The writer's connection with its memory.

    Args:
        unclean: the last daemon on this database ended without closing it.
    """

    def __init__(self, db: sqlite3.Connection, *, unclean: bool = False) -> None:
        self.db = db
        self.unclean = unclean
        self.refused: list[Refused] = []  # in this transaction
        self.policies = Policies()
        self.fresh = Fresh()
        self.last_no: int = db.execute(sql.LAST_NO).fetchone()[0]
        self._stale = True
        self.begin()

    def begin(self) -> None:
        """At the start of a transaction."""
        self.refused = []
        if self._stale:
            self.policies.load(self.db.execute(sql.POLICIES).fetchall())
            self._stale = False

    def forget(self) -> None:
        """After a rollback: what was remembered may not have been stored. Numbers given stay given."""
        self.fresh.clear()
        self._stale = True

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value of a statement that gives one row."""
        return self.db.execute(statement, parameters).fetchone()[0]

    def policy(self, text: bytes) -> int | str:
        """What stands in the row for a policy text; stores a new text."""
        number = self.policies.number(text)
        if number is not None:
            return number
        number = self.policies.add(text)
        if number is None:
            return text.decode()
        self.db.execute(sql.INSERT_POLICY, (number, text.decode()))
        return number

    def state_chunks(self, nos: Sequence[int], at: int) -> None:
        """Write the state event of these jobs as their rows stand now."""
        if nos:
            self.db.execute(sql.STATE_CHUNKS, (at, nos_text(nos)))

    def remove(self, nos: Sequence[int]) -> None:
        """Take jobs away with all that belongs to them."""
        text = nos_text(nos)
        for statement in sql.REMOVE:
            self.db.execute(statement, (text,))
        self.db.execute(sql.REMEMBER_LAST_NO, (self.last_no,))


def nos_text(nos: Sequence[int]) -> str:
    """Job numbers as the JSON array that `json_each` reads."""
    return str(list(nos))


def run_rows(session: Session, statement: Callable[[int], str], values: list[Any], width: int) -> int:
    """Run a multi-row statement, given as a function of the count of rows, over all rows; how many were changed.

    `values` are those of all rows, one after the other, `width` of each row.
    """
    changed, start = 0, 0
    for size in sql.batches(len(values) // width):
        end = start + size * width
        changed += session.db.execute(statement(size), values[start:end]).rowcount
        start = end
    return changed


def run_alike(
    session: Session, statement: Callable[[int], str], shared: Sequence[Any], values: list[Any], width: int
) -> int:
    """The same for a statement whose rows have `shared` in common: those are bound once, before the rows' own."""
    changed, start = 0, 0
    for size in sql.batches(len(values) // width):
        end = start + size * width
        changed += session.db.execute(statement(size), [*shared, *values[start:end]]).rowcount
        start = end
    return changed


def worth_sharing(shapes: Mapping[K, list[T]]) -> tuple[dict[K, list[T]], list[T]]:
    """Split what is grouped by shape: the groups that deserve a statement of their own, and the rest in one list."""
    if len(shapes) <= SHAPES_MAX:
        return dict(shapes), []
    alike = {shape: rows for shape, rows in shapes.items() if len(rows) >= SHAPE_ROWS_MIN}
    return alike, [row for shape, rows in shapes.items() if shape not in alike for row in rows]
