"""F0: the events of a job: stored chunks, and those that are derived from its row.

One job has one numbered sequence. Seq 1 is `job`; the state event of the first claim (`claim_seq`) and of the
outcome (`seq` of a final row) are derived from the row, so the happy path writes no event rows; all others lie in
`chunks`: `count` events of one kind with consecutive numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from jobsvc.model.clock import time_text
from jobsvc.model.job import Job
from jobsvc.model.states import FINAL

EventKind = Literal["job", "state", "progress", "log", "item", "gap", "end"]
EVENT_KINDS: tuple[EventKind, ...] = ("job", "state", "progress", "log", "item", "gap", "end")


class Chunk(msgspec.Struct, kw_only=True, gc=False):
    """`count` events of one kind, numbered from `seq` on.

    `body`: the JSON texts of their `data`, joined by newlines. For items, `stream` is its name and `n` the number of
    the first in that stream (items of a stream are numbered from 1, going on over attempts).
    """

    no: int  # the job's row number
    seq: int
    count: int
    kind: str
    epoch: int
    at: int  # microseconds
    body: bytes
    stream: str | None = None
    n: int | None = None

    @property
    def last(self) -> int:
        """Number of the last event in it."""
        return self.seq + self.count - 1


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt. Those after which the job went on are rows of `attempts`; the last one is in the job's row."""

    epoch: int
    attempt: int
    state: str
    began_at: int | None
    finished_at: int | None
    worker: str | None
    error: bytes | None


def state_data(state: str, reason: str | None, attempt: int, epoch: int, revision: int) -> bytes:
    """The `data` of a state event."""
    return msgspec.json.encode(
        {"state": state, "reason": reason, "attempt": attempt, "epoch": epoch, "revision": revision}
    )


def state_chunk(job: Job, at: int) -> Chunk:
    """The state event that says how `job` stands now, numbered `job.seq`."""
    return Chunk(
        no=job.no, seq=job.seq, count=1, kind="state", epoch=job.epoch, at=at,
        body=state_data(job.state, job.reason, job.attempt, job.epoch, job.revision),
    )  # fmt: skip


def derived(job: Job) -> list[Chunk]:
    """The state events that no row was written for: first claim and outcome, in order."""
    out: list[Chunk] = []
    if job.claim_seq is not None and job.claimed_at is not None:
        # Before the first claim every event is a change of state, so the number is also the revision.
        body = state_data("running", None, 1, 1, job.claim_seq)
        out.append(
            Chunk(no=job.no, seq=job.claim_seq, count=1, kind="state", epoch=1, at=job.claimed_at, body=body)
        )
    if job.state in FINAL and job.finished_at is not None:
        out.append(state_chunk(job, job.finished_at))
    return out


def merged(job: Job, stored: Iterable[Chunk], after: int, upto: int) -> list[Chunk]:
    """Stored chunks and derived events numbered in `after` < seq ≤ `upto`, in order; without `job` (seq 1)."""
    chunks = [*stored, *(c for c in derived(job) if after < c.seq <= upto)]
    chunks.sort(key=lambda c: c.seq)
    return chunks


def event_lines(chunk: Chunk, after: int = 0) -> Iterator[tuple[int, str, bytes]]:
    """(seq, kind, NDJSON line without newline) of each event of `chunk` numbered above `after`."""
    at = time_text(chunk.at)
    for index, data in enumerate(chunk.body.split(b"\n")):
        seq = chunk.seq + index
        if seq <= after:
            continue
        head = f'{{"seq":{seq},"at":"{at}","kind":"{chunk.kind}","data":'.encode()
        if chunk.stream is None or chunk.n is None:
            yield seq, chunk.kind, head + data + b"}"
        else:
            tail = f',"stream":"{chunk.stream}","n":{chunk.n + index}}}'.encode()
            yield seq, chunk.kind, head + data + tail
