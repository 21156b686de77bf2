"""F2: changes of waiting jobs (cancel, run now, timers) and removals. Runs inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from jobsvc.model.audit import Head
from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobError
from jobsvc.model.job import Job
from jobsvc.model.states import FINAL, WAITING
from jobsvc.ports import Change, Move
from jobsvc.store import statements as sql
from jobsvc.store.reads import Reads
from jobsvc.store.session import Session, decode_nos

AUDIT_HEADS_KEPT: Final = 1_000
"""Heads of the audit log that are remembered: with one a minute, more than the last half day of news."""
VACUUM_PART: Final = 4
"""Space goes back to the file system once a quarter of the file is free…"""
VACUUM_PAGES: Final = 1_000
"""…and at most 4 MB of it at a time, as moving pages holds up the writer."""

_EXPIRED: Final = msgspec.json.encode(
    JobError(kind="expired", message="The job was still waiting when the time given by expires_at had come.")
)
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


def move(session: Session, reads: Reads, moves: Sequence[Move]) -> list[Job | None]:
    """Change waiting jobs one by one."""
    return [_move(session, reads, wanted) for wanted in moves]


def _move(session: Session, reads: Reads, wanted: Move) -> Job | None:
    # Only states of the table become part of a statement, in the table's order: few texts to keep.
    frm = tuple(state for state in WAITING if state in wanted.frm)
    if wanted.to not in FINAL and wanted.to not in WAITING:
        raise ValueError(f"a waiting job does not become {wanted.to!r} by a move")
    final = (wanted.at, wanted.error) if wanted.to in FINAL else ()
    parameters = (
        wanted.reason, *final, wanted.id, wanted.if_reason, wanted.if_reason, wanted.if_revision,
    )  # fmt: skip
    if not session.db.execute(sql.move(wanted.to, frm), parameters).rowcount:
        return None
    job = reads.get(wanted.id, args=False, result=False)
    assert job is not None  # it was changed a moment ago, in this transaction
    session.fresh.take((job.no,))
    if not job.done:
        session.state_chunks([job.no], wanted.at)
    return reads.get(wanted.id)


def change(session: Session, reads: Reads, wanted: Change) -> Job | None:
    """Other fields for a waiting job."""
    labels = None if wanted.labels == b"{}" else wanted.labels.decode()
    fields = (wanted.priority, wanted.run_at, wanted.expires_at, session.policy(wanted.policy), labels)
    parameters = (*fields, wanted.reason, wanted.due_at, wanted.id, wanted.revision)
    if not session.db.execute(sql.change(wanted.to), parameters).rowcount:
        return None
    job = reads.get(wanted.id)
    assert job is not None  # it was changed a moment ago, in this transaction
    session.fresh.take((job.no,))
    session.db.execute(sql.KEEP_SUBMITTED, (job.no, job.created_at, wanted.submitted))
    session.state_chunks([job.no], wanted.at)
    return job


def wake(session: Session, now: int, limit: int) -> Mapping[str, int]:
    """Jobs whose time has come → queued; how many of each task."""
    nos = session.value(sql.DUE, now, limit)
    if nos == "[]":
        return {}
    session.db.execute(sql.WAKE, (nos,))
    session.state_chunks(decode_nos(nos), now)
    return _decode_counts(session.value(sql.COUNT_TASKS, nos))


def shift_retries(session: Session, by_us: int) -> int:
    """Retries become due earlier or later by so much; how many were moved."""
    return session.db.execute(sql.SHIFT_RETRIES, (by_us,)).rowcount


def expire(session: Session, reads: Reads, now: int, limit: int) -> list[Job]:
    """Waiting jobs that nobody wants any more → expired; the rows."""
    found = session.value(sql.EXPIRED, now, limit)
    if found == "[]":
        return []
    session.db.execute(sql.EXPIRE, (now, _EXPIRED, found))
    nos = decode_nos(found)
    session.fresh.take(nos)
    return reads.by_nos(nos, args=True, result=True)


def delete(session: Session, job_id: bytes) -> bool:
    """Remove a final job."""
    found = session.db.execute(sql.FINAL_NO, (job_id,)).fetchone()
    if found is None:
        return False
    session.remove(found)
    return True


def anchor(session: Session, head: Head, at: int) -> None:
    """Remember where the audit log stands."""
    session.db.execute(sql.AUDIT_ANCHOR, (head.seq, bytes.fromhex(head.hash), at))
    session.db.execute(sql.AUDIT_FORGET, (AUDIT_HEADS_KEPT,))


def purge(session: Session, before: int, limit: int) -> int:
    """Remove jobs that ended before a moment, and give space back when much is free."""
    nos = decode_nos(session.value(sql.FINISHED, before, limit))
    if nos:
        session.remove(nos)
        crash("CP18")
        free, pages = session.db.execute(sql.FREE_PAGES).fetchone()
        if free * VACUUM_PART > pages:
            # sqlite3 steps a PRAGMA once, and one step of this one frees one page.
            for _ in range(min(free, VACUUM_PAGES)):
                session.db.execute("PRAGMA incremental_vacuum(1)")
    return len(nos)
