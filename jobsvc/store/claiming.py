"""F2: queued → running for workers that have room. Runs inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

import msgspec

from jobsvc.model.job import Job
from jobsvc.ports import Claim
from jobsvc.store import statements as sql
from jobsvc.store.reads import Reads
from jobsvc.store.session import Session, nos_text

PAGE_MIN: Final = 32
"""Queued jobs of one task looked at in one go, when several tasks are wanted: most will not be needed."""

_decode_ready = msgspec.json.Decoder(list[tuple[int, int]]).decode


def claim(session: Session, reads: Reads, claims: Sequence[Claim]) -> list[list[Job]]:
    """Serve the claims in order; each gets its jobs in the order in which they are to run."""
    return [_claim(session, reads, wanted) for wanted in claims]


def _claim(session: Session, reads: Reads, wanted: Claim) -> list[Job]:
    nos = _pick(session, wanted)
    if not nos:
        return []
    jobs = _jobs(session, reads, nos)
    statement_nos = nos_text(nos)
    changed = session.db.execute(
        sql.CLAIM, (wanted.owner, wanted.executor, wanted.at, statement_nos)
    ).rowcount
    if changed != len(nos):
        raise RuntimeError(
            f"of {len(nos)} queued jobs {changed} could be claimed: the index of queued jobs is wrong"
        )
    again: list[int] = []
    for job in jobs:
        job.state = "running"
        job.reason = None
        job.owner = wanted.owner
        job.executor = wanted.executor
        job.epoch += 1
        job.attempt += 1
        job.seq += 1
        job.revision += 1
        job.started_at = None
        if job.claim_seq is None:
            job.claim_seq = job.seq
            job.claimed_at = wanted.at
        else:
            again.append(job.no)
    session.state_chunks(again, wanted.at)
    return jobs


def _pick(session: Session, wanted: Claim) -> list[int]:
    """The numbers to claim: largest priority first, then oldest, never more of a task than wanted."""
    caps = {task: min(most, wanted.limit) for task, most in wanted.wants.items()}
    page = max(PAGE_MIN, wanted.limit // max(1, len(caps)))
    lines = [_ready(session, task, cap, page) for task, cap in caps.items() if cap > 0]
    return [no for _, no in islice(merge(*lines), max(0, wanted.limit))]


def _ready(session: Session, task: str, cap: int, page: int) -> Iterator[tuple[int, int]]:
    """(-priority, no) of the queued jobs of a task, read page by page as they are asked for."""
    for start in range(0, cap, page):
        size = min(page, cap - start)
        found = _decode_ready(session.value(sql.READY, task, size, start))
        yield from found
        if len(found) < size:
            return


def _jobs(session: Session, reads: Reads, nos: Sequence[int]) -> list[Job]:
    """The rows as they stand, with their arguments: from memory what was just submitted, the others read."""
    fresh = session.fresh.take(nos)
    missing = [no for no, job in zip(nos, fresh, strict=True) if job is None]
    read = {job.no: job for job in reads.by_nos(missing, args=True, result=False)}
    return [job or read[no] for no, job in zip(nos, fresh, strict=True)]
