"""F2: putting back what was active when the last daemon ended. Runs inside the writer's transaction, before any claim.

The daemon's own death is nobody's fault: an interrupted attempt does not count, and neither does the loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobError, Where
from jobsvc.model.job import Job, policy_of
from jobsvc.ports import Recovered
from jobsvc.store import statements as sql
from jobsvc.store.rows import jobs_of
from jobsvc.store.session import Session, nos_text, run_rows

_decode_last = msgspec.json.Decoder(list[tuple[int, int]]).decode

_CANCELLED = msgspec.json.encode(
    JobError("cancelled", message="The job was cancelled; its thread ended with the daemon.")
)


def recover(session: Session, now: int) -> Recovered:
    """Every active job → queued, or cancelled when that was asked, or failed `lost` with `on_lost=fail`."""
    session.db.execute(sql.ORPHANS_GONE, (now,))
    session.db.execute(sql.SET_BACK, (now, now))
    gone = session.db.execute(sql.CANCELLED_ORPHANS, (now, _CANCELLED)).rowcount
    jobs = jobs_of(session.value(sql.INTERRUPTED), session.policies)
    done = Recovered(cancelled=gone, unclean=session.unclean)
    if not jobs:
        return done
    nos = nos_text([job.no for job in jobs])
    last_events = dict(_decode_last(session.value(sql.LAST_EVENTS, nos)))
    queued: list[Job] = []
    failed: list[Any] = []
    cancelled: list[Any] = []
    for job in jobs:
        # The events of items and logs are numbered ahead of the row.
        job.seq = max(job.seq, last_events.get(job.no, 0)) + 1
        job.revision += 1
        if job.state == "stopping" and job.reason == "cancel_asked":
            error = _error(job, "cancelled", "The job was cancelled; the daemon ended before it had stopped.")
            cancelled += _end(job, "cancel_asked", now, error)
            done.cancelled += 1
        elif policy_of(job.policy).on_lost == "fail":
            error = _error(
                job, "lost", "The daemon ended while the job ran; by on_lost=fail it is not run again."
            )
            failed += _end(job, "lost", now, error)
            done.failed += 1
        else:
            queued.append(job)
            done.queued += 1
    width = len(sql.SETTLE_FIELDS) + 3
    run_rows(session, partial(sql.settle, "failed"), failed, width)
    run_rows(session, partial(sql.settle, "cancelled"), cancelled, width)
    _requeue(session, queued, now)
    crash("CP13")
    return done


def _error(job: Job, kind: Any, message: str) -> bytes:
    where = Where(executor=job.executor, worker=job.owner, attempt=job.attempt, epoch=job.epoch)
    return msgspec.json.encode(JobError(kind=kind, message=message, where=where))


def _end(job: Job, reason: str, now: int, error: bytes) -> tuple[Any, ...]:
    """A row of `statements.settle`."""
    return (reason, job.attempt, job.losses, job.started_at, now, job.seq, job.revision, None, error, 0,
            job.no, job.epoch, job.owner)  # fmt: skip


def _requeue(session: Session, jobs: list[Job], now: int) -> None:
    message = (
        "The daemon ended while this attempt ran; the job is queued again and the attempt does not count."
    )
    steps: list[Any] = []
    records: list[Any] = []
    for job in jobs:
        attempt = max(0, job.attempt - 1)
        steps += ("lost", attempt, job.losses, None, job.seq, job.revision, job.no, job.epoch, job.owner)
        error = _error(job, "lost", message)
        records += (job.no, job.epoch, job.attempt, "lost", job.started_at, now, job.owner, error)
    run_rows(session, partial(sql.step, "queued"), steps, len(sql.STEP_FIELDS) + 3)
    run_rows(session, sql.insert_attempts, records, sql.ATTEMPT_WIDTH)
    session.state_chunks([job.no for job in jobs], now)
