"""F2: rows of the database as values of the model. Builds SELECT expressions and decodes what they give; runs nothing.

Rows are read as one JSON text for the whole answer. `sqlite3` offers the interpreter lock at every row it steps to:
beside a busy reactor 500 rows one by one took 81 ms, as one text 9 ms. Blobs travel in it as hexadecimal, which is
exact for any bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import msgspec

from jobsvc.model.events import Attempt, Chunk
from jobsvc.model.job import ARGS_LARGE, RESULT_LARGE, Job
from jobsvc.model.states import State

POLICIES_MAX: Final = 4096
"""Policy texts kept once in their own table; beyond that (clients that invent one per job) they stand in the row."""


class Policies:
    """The texts of `policies` by number and back. Written by the writer's thread alone, read by all."""

    def __init__(self) -> None:
        self._by_no: dict[int, bytes] = {}
        self._by_text: dict[bytes, int] = {}

    def load(self, rows: list[tuple[int, str]]) -> None:
        """Replace everything by these rows, as a whole, since readers look on."""
        by_no = {no: body.encode() for no, body in rows}
        self._by_no, self._by_text = by_no, {body: no for no, body in by_no.items()}

    def number(self, text: bytes) -> int | None:
        """The number of a text that is stored."""
        return self._by_text.get(text)

    def add(self, text: bytes) -> int | None:
        """A number for a new text, to be stored by the caller; None when the table is full."""
        if len(self._by_no) >= POLICIES_MAX:
            return None
        no = len(self._by_no) + 1
        self._by_no[no] = text
        self._by_text[text] = no
        return no

    def text(self, stored: int | str) -> bytes:
        """The text of what stands in a row."""
        return self._by_no[stored] if isinstance(stored, int) else stored.encode()


class _JobRow(msgspec.Struct, array_like=True, gc=False):
    """One row of `jobs` as `JOB_COLUMNS` are read."""

    no: int
    id: str
    state: State
    task: str
    executor: str
    queue: str
    priority: int
    tenant: str
    reason: str | None
    revision: int
    epoch: int
    attempt: int
    created_at: int
    run_at: int | None
    due_at: int | None
    expires_at: int | None
    claimed_at: int | None
    claim_seq: int | None
    started_at: int | None
    finished_at: int | None
    owner: str | None
    seq: int
    losses: int
    policy: int | str
    labels: str | None
    key: str | None
    key_hash: str | None
    parent: str | None
    rerun_of: str | None
    large: int
    progress: str | None
    args: str | None
    result: str | None
    error: str | None
    request_id: str | None
    traceparent: str | None


JOB_COLUMNS: Final[tuple[str, ...]] = _JobRow.__struct_fields__
"""The columns of `jobs`, in the order of the table."""
_BLOBS: Final = frozenset(("id", "key_hash", "parent", "rerun_of", "progress", "args", "result", "error"))

_decode_jobs = msgspec.json.Decoder(list[_JobRow]).decode


def _read(column: str) -> str:
    if column == "id":
        return "hex(id)"
    # The test is cheaper than hex() of NULL, and most of these are NULL.
    return f"CASE WHEN {column} IS NOT NULL THEN hex({column}) END" if column in _BLOBS else column


@cache
def job_array(*, args: bool = True, result: bool = True) -> str:
    """The aggregate that gives rows of `jobs` as one JSON text; what is not asked for is left empty."""
    left_out = {name for name, wanted in (("args", args), ("result", result)) if not wanted}
    fields = ("NULL" if column in left_out else _read(column) for column in JOB_COLUMNS)
    return f"json_group_array(json_array({','.join(fields)}))"


def _blob(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def jobs_of(text: str, policies: Policies) -> list[Job]:
    """The jobs in an answer of `job_array`."""
    return [_job(row, policies) for row in _decode_jobs(text)]


def _job(r: _JobRow, policies: Policies) -> Job:
    job = Job(
        no=r.no, id=bytes.fromhex(r.id), tenant=r.tenant, task=r.task, executor=r.executor, queue=r.queue,
        priority=r.priority, state=r.state, reason=r.reason, revision=r.revision, epoch=r.epoch,
        attempt=r.attempt, created_at=r.created_at, run_at=r.run_at, due_at=r.due_at, expires_at=r.expires_at,
        claimed_at=r.claimed_at, claim_seq=r.claim_seq, started_at=r.started_at, finished_at=r.finished_at,
        owner=r.owner, seq=r.seq, losses=r.losses, policy=policies.text(r.policy), key=r.key, large=r.large,
        args=_blob(r.args), result=_blob(r.result), error=_blob(r.error),
        request_id=r.request_id, traceparent=r.traceparent,
    )  # fmt: skip
    if r.labels is not None:
        job.labels = r.labels.encode()
    if r.progress is not None:
        job.progress = bytes.fromhex(r.progress)
    if r.key_hash is not None:
        job.key_hash = bytes.fromhex(r.key_hash)
    if r.parent is not None:
        job.parent = bytes.fromhex(r.parent)
    if r.rerun_of is not None:
        job.rerun_of = bytes.fromhex(r.rerun_of)
    return job


class _ChunkRow(msgspec.Struct, array_like=True, gc=False):
    """One row of `chunks` as `CHUNK_ARRAY` gives it."""

    no: int
    seq: int
    count: int
    kind: str
    epoch: int
    stream: str | None
    n: int | None
    at: int
    body: str


CHUNK_COLUMNS: Final[tuple[str, ...]] = _ChunkRow.__struct_fields__
CHUNK_ARRAY: Final = "json_group_array(json_array(no,seq,count,kind,epoch,stream,n,at,hex(body)))"
"""The aggregate that gives rows of `chunks` as one JSON text."""
_decode_chunks = msgspec.json.Decoder(list[_ChunkRow]).decode


def chunks_of(text: str) -> list[Chunk]:
    """The chunks in an answer of `CHUNK_ARRAY`, by their numbers."""
    chunks = [
        Chunk(
            no=r.no, seq=r.seq, count=r.count, kind=r.kind, epoch=r.epoch, at=r.at, body=bytes.fromhex(r.body),
            stream=r.stream, n=r.n,
        )
        for r in _decode_chunks(text)
    ]  # fmt: skip
    chunks.sort(key=lambda chunk: chunk.seq)
    return chunks


class _AttemptRow(msgspec.Struct, array_like=True, gc=False):
    """One row of `attempts` as `ATTEMPT_ARRAY` gives it."""

    epoch: int
    attempt: int
    state: str
    began_at: int | None
    finished_at: int
    worker: str | None
    error: str | None


ATTEMPT_ARRAY: Final = (
    f"json_group_array(json_array(epoch,attempt,state,began_at,finished_at,worker,{_read('error')}))"
)
"""The aggregate that gives rows of `attempts` as one JSON text."""
_decode_attempts = msgspec.json.Decoder(list[_AttemptRow]).decode


def attempts_of(text: str) -> list[Attempt]:
    """The attempts in an answer of `ATTEMPT_ARRAY`, in order."""
    attempts = [
        Attempt(
            epoch=r.epoch, attempt=r.attempt, state=r.state, began_at=r.began_at, finished_at=r.finished_at,
            worker=r.worker, error=_blob(r.error),
        )
        for r in _decode_attempts(text)
    ]  # fmt: skip
    attempts.sort(key=lambda attempt: attempt.epoch)
    return attempts


LARGE_FIELDS: Final = ((ARGS_LARGE, "args"), (RESULT_LARGE, "result"))
"""Bits of `large` and the field of `Job` whose text lies in `payload`."""
