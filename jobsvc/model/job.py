"""F0: a job: the envelope a client sends, the row that is stored, the shape that is served.

Times are INTEGER microseconds here (`clock.py`); JSON values are kept as the encoded bytes they came as.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from jobsvc.model import limits
from jobsvc.model.clock import time_text
from jobsvc.model.ids import id_text
from jobsvc.model.sealing import masked
from jobsvc.model.states import FINAL, State
from jobsvc.model.task import Backoff, OnLost, Policy, Timeouts

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$(?!\n)"
"""Names of tasks and queues. `$` alone would let a newline at the end pass here, though not where JSON Schema is read
elsewhere.
"""

Seconds = Annotated[float, Meta(ge=0, le=limits.DURATION_MAX_S)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=limits.DURATION_MAX_S)]
AwareTime = Annotated[datetime, Meta(tz=True)]


class TimeoutsIn(msgspec.Struct, forbid_unknown_fields=True):
    """`timeouts` of a submit; what is left out comes from the task, null takes the task's away."""

    run: PositiveSeconds | UnsetType | None = UNSET
    idle: PositiveSeconds | UnsetType | None = UNSET
    total: PositiveSeconds | UnsetType | None = UNSET


class BackoffIn(msgspec.Struct, forbid_unknown_fields=True):
    """`backoff` of a submit."""

    base_s: Seconds | UnsetType = UNSET
    max_s: Seconds | UnsetType = UNSET


class Submit(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/jobs` and of a bulk line. Labels and the meaning of times are checked by the engine."""

    task: Annotated[str, Meta(min_length=1, max_length=limits.NAME_MAX_CHARS)]
    args: Raw | UnsetType = UNSET
    key: Annotated[str, Meta(min_length=1, max_length=limits.KEY_MAX_CHARS)] | UnsetType = UNSET
    queue: Annotated[str, Meta(pattern=NAME_PATTERN)] | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)] | UnsetType = UNSET
    run_at: AwareTime | UnsetType = UNSET
    delay_s: Seconds | UnsetType = UNSET
    expires_at: AwareTime | UnsetType = UNSET
    timeouts: TimeoutsIn | UnsetType = UNSET
    retries: Annotated[int, Meta(ge=0, le=limits.RETRIES_MAX)] | UnsetType = UNSET
    backoff: BackoffIn | UnsetType = UNSET
    on_lost: OnLost | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class Patch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PATCH /v1/jobs/{id}`, a JSON merge patch: what is left out stays. `labels` and `timeouts` are merged
    member by member, where null takes one away; `labels` null takes all. `run_at` null or past: as soon as can be.
    """  # fmt: skip

    priority: Annotated[int, Meta(ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)] | UnsetType = UNSET
    run_at: AwareTime | UnsetType | None = UNSET
    timeouts: TimeoutsIn | UnsetType = UNSET
    labels: dict[str, str | None] | UnsetType | None = UNSET


class Origin(NamedTuple):
    """What the client calls the request that made a job, so that the job is found in its logs and traces.

    `request_id`: its X-Request-ID; `traceparent`: its W3C Trace Context. None where it gave none.
    """

    request_id: str | None = None
    traceparent: str | None = None


NO_ORIGIN = Origin()


class Job(msgspec.Struct, kw_only=True, gc=False):
    """One row of `jobs`. The comment says who writes the field; mutable, owned by the engine while active.

    `args`, `result` are JSON texts; None with the matching bit of `large` set means that the text lies in `payload`
    and was not fetched.
    """

    no: int = 0  # store, at submit: row number, growing
    id: bytes  # submit
    tenant: str = "default"  # submit
    task: str  # submit
    executor: str  # submit; claim, when the task has changed its executor meanwhile
    queue: str = "default"  # submit
    priority: int = 0  # submit
    state: State = "queued"  # everyone, along states.TRANSITIONS
    reason: str | None = None
    revision: int = 1  # +1 with every change of state or progress; before the first claim equal to `seq`
    epoch: int = 0  # claim: +1
    attempt: int = 0  # claim: +1; taken back when the attempt does not count
    created_at: int  # submit
    run_at: int | None = None  # submit: when asked for later than at once
    due_at: int | None = None  # submit, retry: when the timer queues it
    expires_at: int | None = None  # submit: as asked, or when `timeouts.total` is over, if that comes first
    claimed_at: int | None = None  # first claim
    claim_seq: int | None = None  # first claim: sequence number of its state event
    started_at: int | None = None  # end of an attempt: when its code began
    finished_at: int | None = None  # settle
    owner: str | None = None  # claim: id of the worker
    seq: int = 1  # last event's number; while active the engine's memory is ahead of the row
    losses: int = 0  # losses while the daemon lived
    policy: bytes = b"{}"  # submit: JSON of Policy
    labels: bytes = b"{}"  # submit: JSON object
    args: bytes | None = None  # submit
    result: bytes | None = None  # settle
    error: bytes | None = None  # settle: JSON of JobError
    progress: bytes | None = None  # JSON {"n","of","note"}
    key: str | None = None  # submit
    key_hash: bytes | None = None  # submit: SHA-256 of the canonical body
    parent: bytes | None = None
    rerun_of: bytes | None = None  # retry
    request_id: str | None = None  # submit: the client's X-Request-ID
    traceparent: str | None = None  # submit: W3C Trace Context of the client
    large: int = 0  # bits ARGS_LARGE, RESULT_LARGE

    @property
    def origin(self) -> Origin | None:
        """What its request was called; None when it was not."""
        if self.request_id is None and self.traceparent is None:
            return None
        return Origin(self.request_id, self.traceparent)

    @property
    def done(self) -> bool:
        """Whether the outcome is recorded."""
        return self.state in FINAL

    @property
    def lacks_texts(self) -> bool:
        """Whether the row was read without the arguments or the result that lie beside it."""
        return bool(
            (self.large & ARGS_LARGE and self.args is None)
            or (self.large & RESULT_LARGE and self.result is None)
        )


ARGS_LARGE = 1
RESULT_LARGE = 2

_policy_decoder = msgspec.json.Decoder(Policy)


@lru_cache(maxsize=4096)
def policy_of(text: bytes) -> Policy:
    """The policy a row holds; cached, as most jobs of a task share one text."""
    return _policy_decoder.decode(text)


class JobView(msgspec.Struct):
    """A job as it is served (design section 8), every field always present; lists leave out `args` and `result`."""

    id: str
    task: str
    args: Raw | UnsetType
    executor: str
    queue: str
    priority: int
    labels: Raw
    tenant: str
    state: str
    done: bool
    reason: str | None
    revision: int
    epoch: int
    attempt: int
    max_attempts: int
    backoff: Backoff
    on_lost: str
    created_at: str
    run_at: str | None
    expires_at: str | None
    started_at: str | None
    finished_at: str | None
    timeouts: Timeouts
    progress: Raw
    result: Raw | UnsetType
    error: Raw
    durability: str
    parent: str | None
    rerun_of: str | None
    request_id: str | None
    traceparent: str | None
    links: Raw


_NULL = Raw(b"null")


def _when(us: int | None) -> str | None:
    return None if us is None else time_text(us)


def view(job: Job, durability: str, *, args: bool = True, result: bool = True) -> JobView:
    """The shape of `job` for the wire; `args`/`result` False leaves that member out."""
    policy = policy_of(job.policy)
    text = id_text(job.id)
    link = f"/v1/jobs/{text}"
    return JobView(
        id=text,
        task=job.task,
        args=(Raw(masked(job.args)) if job.args is not None else _NULL) if args else UNSET,
        executor=job.executor,
        queue=job.queue,
        priority=job.priority,
        labels=Raw(job.labels),
        tenant=job.tenant,
        state=job.state,
        done=job.state in FINAL,
        reason=job.reason,
        revision=job.revision,
        epoch=job.epoch,
        attempt=job.attempt,
        max_attempts=policy.max_attempts,
        backoff=policy.backoff,
        on_lost=policy.on_lost,
        created_at=time_text(job.created_at),
        run_at=_when(job.due_at if job.state == "retrying" else job.run_at),
        expires_at=_when(job.expires_at),
        started_at=_when(job.started_at),
        finished_at=_when(job.finished_at),
        timeouts=policy.timeouts,
        progress=Raw(job.progress) if job.progress is not None else _NULL,
        result=(Raw(job.result) if job.result is not None else _NULL) if result else UNSET,
        error=Raw(job.error) if job.error is not None else _NULL,
        durability=durability,
        parent=None if job.parent is None else id_text(job.parent),
        rerun_of=None if job.rerun_of is None else id_text(job.rerun_of),
        request_id=job.request_id,
        traceparent=job.traceparent,
        links=Raw(
            f'{{"self":"{link}","result":"{link}/result","events":"{link}/events","out":"{link}/streams/out"}}'.encode()
        ),
    )


def as_submitted(job: Job) -> Job:
    """The job as it was when it was accepted: what the first event, `job`, shows however late it is read."""
    scheduled = job.run_at is not None and job.run_at > job.created_at
    return msgspec.structs.replace(
        job,
        state="scheduled" if scheduled else "queued",
        reason="run_at" if scheduled else None,
        revision=1,
        epoch=0,
        attempt=0,
        due_at=job.run_at,
        claimed_at=None,
        started_at=None,
        finished_at=None,
        owner=None,
        progress=None,
        result=None,
        error=None,
        seq=1,
    )


def submitted_data(job: Job, durability: str) -> bytes:
    """The `data` of a job's first event, from its row: right until its first change of fields, and stored by that."""
    return msgspec.json.encode(view(as_submitted(job), durability))
