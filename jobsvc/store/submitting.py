"""F2: the INSERTs of new jobs, and the idempotency keys. Runs inside the writer's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from operator import attrgetter
from typing import Any, Final

from jobsvc.model.crashpoints import crash
from jobsvc.model.job import ARGS_LARGE, Job
from jobsvc.model.limits import INLINE_MAX_BYTES
from jobsvc.ports import Submitted
from jobsvc.store import statements as sql
from jobsvc.store.reads import Reads
from jobsvc.store.rows import JOB_COLUMNS
from jobsvc.store.session import FRESH_ARGS_MAX_BYTES, Session, decode_nos, run_alike, run_rows, worth_sharing

_shared = attrgetter(*sql.SUBMIT_SHARED)
_OWN: Final = {
    named: (own, attrgetter(*own)) for named, own in ((False, sql.SUBMIT_OWN), (True, sql.SUBMIT_OWN_NAMED))
}
"""Whether its client has named a job → the columns that are its own, and what reads them."""
# What the short INSERTs leave to the columns' defaults, and how it must stand for them to be right. A new job has no
# outcome, progress or losses: those columns are not looked at.
_unusual = attrgetter("labels", "run_at", "due_at", "expires_at", "reason", "large", "parent", "rerun_of")
_USUAL: Final = (b"{}", None, None, None, None, 0, None, None)
_stand = attrgetter("state", "epoch", "seq", "revision", "claim_seq")
_QUEUED: Final = ("queued", 0, 1, 1, None)
_RUNNING: Final = ("running", 1, 2, 2, 2)
_all = attrgetter(*JOB_COLUMNS)
_POLICY, _LABELS, _ARGS = (JOB_COLUMNS.index(name) for name in ("policy", "labels", "args"))


def submit(session: Session, reads: Reads, jobs: Sequence[Job]) -> list[Submitted]:
    """Insert jobs; those whose key is taken are answered from what is there."""
    answers = _submit(session, reads, jobs)
    crash("CP2")
    return answers


def _submit(session: Session, reads: Reads, jobs: Sequence[Job]) -> list[Submitted]:
    keyed = [job for job in jobs if job.key is not None]
    if not keyed:
        _insert(session, jobs)
        return [Submitted(job) for job in jobs]
    held = _held(session, reads, keyed)
    new: list[Job] = []
    answers: list[Submitted] = []
    for job in jobs:
        if job.key is None:
            new.append(job)
            answers.append(Submitted(job))
            continue
        earlier = held.get((job.tenant, job.key))
        if earlier is None and job.state == "expired":
            answers.append(Submitted(None, late=job))
        elif earlier is None:
            held[job.tenant, job.key] = job
            new.append(job)
            answers.append(Submitted(job))
        elif earlier.key_hash == job.key_hash:
            answers.append(Submitted(earlier, replayed=True))
        else:
            answers.append(Submitted(None))
    _insert(session, new)
    # A job that was given twice in one go is one row, but two answers, each with a job of its own.
    return [Submitted(copy(a.job), replayed=True) if a.replayed else a for a in answers]


def _held(session: Session, reads: Reads, keyed: Sequence[Job]) -> dict[tuple[str, str], Job]:
    """The stored jobs that hold a key of `keyed`."""
    nos: list[int] = []
    start = 0
    for size in sql.batches(len(keyed)):
        pairs = [text for job in keyed[start : start + size] for text in (job.tenant, job.key)]
        nos += decode_nos(session.value(sql.key_holders(size), *pairs))
        start += size
    return {(job.tenant, job.key or ""): job for job in reads.by_nos(nos, args=True, result=True)}


def _insert(session: Session, jobs: Sequence[Job]) -> None:
    queued: defaultdict[tuple[Any, ...], list[Job]] = defaultdict(list)
    running: defaultdict[tuple[Any, ...], list[Job]] = defaultdict(list)
    others: list[Job] = []
    no = session.last_no
    for job in jobs:
        no += 1
        job.no = no
        if job.args is not None and len(job.args) > INLINE_MAX_BYTES:
            job.large |= ARGS_LARGE
        stand = _stand(job) if _unusual(job) == _USUAL else None
        named = job.key is not None or job.request_id is not None or job.traceparent is not None
        if stand == _QUEUED:
            queued[named, _shared(job), job.policy].append(job)
        elif stand == _RUNNING:
            running[named, _shared(job), job.policy, job.owner, job.claimed_at].append(job)
        else:
            others.append(job)
    session.last_no = no
    others += _insert_alike(session, sql.insert_queued, queued)
    others += _insert_alike(session, sql.insert_running, running)
    _insert_full(session, others)
    for alike in queued.values():
        session.fresh.keep(
            [job for job in alike if job.args is None or len(job.args) <= FRESH_ARGS_MAX_BYTES]
        )


def _insert_alike(
    session: Session,
    statement: Callable[..., str],
    shapes: Mapping[tuple[Any, ...], list[Job]],
) -> list[Job]:
    """Insert jobs that share most columns; those that are left for the general statement."""
    alike, others = worth_sharing(shapes)
    for (named, shared, policy, *claimed), jobs in alike.items():
        own, values_of = _OWN[named]
        values: list[Any] = []
        for job in jobs:
            values += values_of(job)
        bound = (*shared, session.policy(policy), *claimed)
        run_alike(session, partial(statement, own=own), bound, values, len(own))
    return others


def _insert_full(session: Session, jobs: Sequence[Job]) -> None:
    values: list[Any] = []
    texts: list[Any] = []
    for job in jobs:
        args = job.args
        if args is not None and job.large & ARGS_LARGE:
            texts += (job.no, ARGS_LARGE, args)
            args = None
        values += _full_row(job, session.policy(job.policy), args)
    run_rows(session, sql.insert_full, values, len(JOB_COLUMNS))
    run_rows(session, sql.insert_payload, texts, 3)


def _full_row(job: Job, policy: int | str, args: bytes | None) -> list[Any]:
    row = list(_all(job))
    row[_POLICY] = policy
    row[_LABELS] = None if job.labels == b"{}" else job.labels.decode()
    row[_ARGS] = args
    return row
