"""F1: the seams between the rooms, as Protocols: the store, a worker, and who listens to workers.

The engine is written against these; `store` and `pool` implement them. Only the model is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from jobsvc.model.audit import Head
from jobsvc.model.errors import Exit
from jobsvc.model.events import Attempt, Chunk
from jobsvc.model.job import Job
from jobsvc.model.states import State
from jobsvc.model.task import TaskSpec
from jobsvc.model.tokens import Token

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from jobsvc.model.frames import Message

Durability = Literal["power", "process", "memory"]

# == store ========================================================================================================


class Submitted(msgspec.Struct, gc=False):
    """What became of one submitted job. `job` is the row as stored: the new one, or with `replayed` the earlier one
    of the same key and body; None when the key belongs to another body (`key_reused`), or to none and the job is
    `late`: it came after its own end, so only a replay could have answered it, and it is not stored.
    """  # fmt: skip

    job: Job | None
    replayed: bool = False
    late: Job | None = None


class Claim(msgspec.Struct, gc=False):
    """Give `owner` up to `limit` queued jobs: largest priority first, then oldest.

    `wants`: task name → at most so many of it (its concurrency still free; `limit` where there is none). Only these
    tasks are looked at. `executor` is written to the row.
    """

    owner: str
    executor: str
    wants: Mapping[str, int]
    limit: int
    at: int


class Settled(msgspec.Struct, gc=False):
    """The outcome of a job, written once: WHERE no, epoch, owner, state active.

    `seq` and `revision` are absolute: the engine's memory of an active job is ahead of its row.
    """

    no: int
    epoch: int
    owner: str
    state: State
    reason: str | None
    attempt: int
    started_at: int | None
    finished_at: int
    seq: int
    revision: int
    result: bytes | None
    error: bytes | None
    losses: int = 0


class Step(msgspec.Struct, gc=False):
    """A change of an active job that does not end it: to `stopping`, `retrying` or back to `queued`.

    Fenced like `Settled`. Going back to waiting clears the owner and adds `record` (the attempt that ended) to
    `attempts`, unless it is None (a recall counts for nothing). The state event is written as a chunk numbered `seq`.
    """

    no: int
    epoch: int
    owner: str
    to: State
    reason: str | None
    at: int
    due_at: int | None
    attempt: int
    losses: int
    seq: int
    revision: int
    record: Attempt | None = None


class Append(msgspec.Struct, gc=False):
    """A chunk of an active attempt. `owner` fences it. For kind `progress` the row's progress, seq and `revision`
    are written too. An item chunk with `n` None is numbered by the store: on from the last item of that stream.
    Chunks of the same kind and stream that lie whole within `drop_from`…`drop_through` go (0: none).
    """  # fmt: skip

    chunk: Chunk
    owner: str
    revision: int = 0
    drop_from: int = 0
    drop_through: int = 0


class Move(msgspec.Struct, gc=False):
    """A change of a waiting job by operator or client: cancel, run now. Only from the states `frm`.

    A final `to` sets `finished_at`, `error`; `queued` clears `due_at`. The event is written or derived by the rules
    of `model.events`.
    """

    id: bytes
    frm: tuple[State, ...]
    to: State
    reason: str | None
    at: int
    error: bytes | None = None
    if_reason: str | None = None
    """Only if the row has this reason; None = whatever it is."""
    if_revision: int | None = None
    """Only if the row has this revision; None = whatever it is."""


class Change(msgspec.Struct, gc=False, kw_only=True):
    """New fields of a waiting job, by a client: WHERE id, `revision`, still waiting.

    The row is known to be what the client has seen, so the fields are given whole; `reason` and `due_at` None stay as
    they are. `to` None keeps the state; `queued` starts what waits for its moment, as a move does, and clears `due_at`.
    The event is a state event either way. `submitted` is the first event of the job as it was until now: it is kept,
    unless one is, since the changed row does not tell it any more.
    """

    id: bytes
    revision: int
    submitted: bytes
    to: Literal["queued"] | None
    reason: str | None
    at: int
    priority: int
    run_at: int | None
    expires_at: int | None
    policy: bytes
    labels: bytes
    due_at: int | None = None


class Recovered(msgspec.Struct):
    """What the start found interrupted, by count."""

    queued: int = 0
    failed: int = 0
    cancelled: int = 0
    unclean: bool = False
    """Whether the last daemon on this database ended without closing it."""


WriteRefusal = Literal["gone", "epoch", "final", "state", "owner"]
"""Why a fence refused the write of an attempt. `gone`: there is no such job any more; `epoch`: a later attempt has
begun; `final`: the job has its outcome; `state`: it is waiting, or its state does not allow this change; `owner`: the
attempt is another worker's."""


class JobFilter(msgspec.Struct, kw_only=True):
    """What `GET /v1/jobs` selects; None = no condition. `cursor` is the row number after (before) which to go on.

    `among_tasks`, `among_queues`: what the asker may see at all; empty = everything.
    `max_bytes`: of arguments and results on one page, which has at least one job; None = no bound.
    """

    tenant: str | None = None
    states: tuple[str, ...] = ()
    task: str | None = None
    queue: str | None = None
    among_tasks: frozenset[str] = frozenset()
    among_queues: frozenset[str] = frozenset()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    since: int | None = None
    cursor: int | None = None
    ascending: bool = False
    limit: int = 50
    max_bytes: int | None = None
    args: bool = False
    result: bool = False


class JobPage(NamedTuple):
    """One page of a list. `more`: jobs that match stand behind its last one."""

    jobs: Sequence[Job]
    more: bool


class Store(Protocol):
    """Durable truth, with Deferreds. Each write is acknowledged after its commit; calls are grouped by the store.

    Within one group writes are applied in this order, each kind merged: submit, append, settle, step, move, claim,
    then the rest; every answer is delivered in the order of the calls, in one wake-up of the reactor.

    Errors: `CannotWrite`, which passes, or the driver's error, which is fatal to the daemon.
    """

    durability: Durability
    refusals: Mapping[WriteRefusal, int]
    """How many writes of attempts the fences have refused, by reason; each is logged too."""

    # -- life
    def open(self) -> Deferred[None]:
        """Open or create the database, migrate it. Raises `StoreRefused` with the file's name and what to do."""

    def recover(self, now: int) -> Deferred[Recovered]:
        """At start, before anything is claimed: what was active is queued again (not counted), or failed `lost` with
        `on_lost=fail`, or cancelled when it was `stopping` because a cancel was asked. A retry that waited for a
        thread of the old daemon (`orphan_running`) is queued.
        """

    def close(self) -> Deferred[None]:
        """Finish the writes in hand, checkpoint, close readers, then the writer."""

    # -- writes
    def submit(self, jobs: Sequence[Job]) -> Deferred[list[Submitted]]:
        """Insert, setting `no`; a job with `state="running"` (owner, epoch 1, claim_seq 2) is claimed by it."""

    def append(self, chunks: Sequence[Append]) -> Deferred[list[bool]]:
        """Store chunks of active attempts; False = refused by the fence."""

    def settle(self, ends: Sequence[Settled]) -> Deferred[list[bool]]:
        """Record outcomes; False = refused by the fence, nothing changed."""

    def step(self, steps: Sequence[Step]) -> Deferred[list[bool]]:
        """Change active jobs; False = refused by the fence."""

    def move(self, moves: Sequence[Move]) -> Deferred[list[Job | None]]:
        """Change waiting jobs; the row afterwards, None = not in one of `frm` or not there."""

    def change(self, change: Change) -> Deferred[Job | None]:
        """Other fields for a waiting job; the row afterwards, None = not waiting, not there, or of another revision."""

    def claim(self, claims: Sequence[Claim]) -> Deferred[list[list[Job]]]:
        """Queued → running, epoch and attempt + 1; rows with their `args` fetched, large ones too."""

    def wake(self, now: int, limit: int) -> Deferred[Mapping[str, int]]:
        """Due scheduled and retrying jobs → queued; how many of each task."""

    def shift_retries(self, by_us: int) -> Deferred[int]:
        """The wall clock was set: retries keep the seconds they still had to wait; how many were moved."""

    def expire(self, now: int, limit: int) -> Deferred[list[Job]]:
        """Waiting jobs whose `expires_at` has passed → expired, with the error of kind `expired`; the rows."""

    def delete(self, job_id: bytes) -> Deferred[bool]:
        """Remove a final job with all that belongs to it; False = not final or not there."""

    def purge(self, before: int, limit: int) -> Deferred[int]:
        """Retention: remove up to `limit` jobs that ended before `before`; how many went."""

    def anchor(self, head: Head, at: int) -> Deferred[None]:
        """Remember where the audit log stands, so that a cut-off end is noticed."""

    def audit_head(self) -> Deferred[Head | None]:
        """Where the audit log stood last; None before the first time."""

    def put_tokens(self, tokens: Sequence[Token]) -> Deferred[None]:
        """Store new tokens, and of those with a known id `expires_at` and `revoked_at`; all or none."""

    def touch_tokens(self, used: Mapping[str, int]) -> Deferred[None]:
        """When these tokens, by id, were last used; never earlier than stored."""

    def forget_tokens(self, ended_before: int) -> Deferred[int]:
        """Remove tokens that expired or were revoked before then; how many went."""

    # -- reads; rows come without large texts unless asked
    def get(self, job_id: bytes, *, args: bool = True, result: bool = True) -> Deferred[Job | None]:
        """One job."""

    def get_many(self, ids: Sequence[bytes], max_bytes: int | None = None) -> Deferred[dict[bytes, Job]]:
        """Full rows of those that are there.

        Args:
            max_bytes: of large texts in all, but for the first row that has some; rows beyond that come without theirs
                (`Job.lacks_texts`), those that are done last.
        """

    def done(self, ids: Sequence[bytes], tenant: str) -> Deferred[dict[bytes, bool]]:
        """Of the tenant's jobs among these: whether each is done. Costs a tenth of `get_many`."""

    def by_key(self, tenant: str, key: str) -> Deferred[Job | None]:
        """The job that holds an idempotency key."""

    def by_keys(self, tenant: str, keys: Sequence[str]) -> Deferred[dict[str, Job]]:
        """The jobs that hold these keys, by key, without arguments and results."""

    def chunks(
        self, no: int, after: int, max_bytes: int, kinds: Sequence[str] = (), streams: Sequence[str] = ()
    ) -> Deferred[list[Chunk]]:
        """Stored chunks that hold events numbered above `after`, in order, at least one and about `max_bytes`."""

    def items(
        self, no: int, stream: str, after: int, max_bytes: int, epoch: int | None
    ) -> Deferred[list[Chunk]]:
        """Item chunks of one stream with item numbers above `after`; of one epoch or of all."""

    def attempts(self, no: int) -> Deferred[list[Attempt]]:
        """Ended attempts that were not the last, in order."""

    def queued(self) -> Deferred[Mapping[str, int]]:
        """How many jobs are queued, by task."""

    def depths(self) -> Deferred[Mapping[str, int]]:
        """How many jobs are queued, scheduled or retrying, by tenant."""

    def next_due(self) -> Deferred[int | None]:
        """The earliest moment at which `wake` or `expire` has work; None when there is none."""

    def tokens(self) -> Deferred[list[Token]]:
        """All tokens, oldest first, those that have ended too."""

    # Last: below it, `list` no longer names the type.
    def list(self, wanted: JobFilter) -> Deferred[JobPage]:
        """One page, newest first or ascending."""


# == workers ======================================================================================================

WorkerKind = Literal["io", "cpu", "command"]


class Death(msgspec.Struct):
    """How a worker ended.

    `how`: `exit` (by itself: status or a signal other than SIGKILL; or for what its attempt used: by a limit, or by the
    kernel for want of memory, with `exit.oom`), `killed` (we sent the SIGKILL, to stop an attempt), `stalled` (we
    killed it for missing its heartbeat), `lost` (a SIGKILL we did not send, or a lost channel), `quit` (told to).
    `running` is the attempt its begin mark named at the end: of a cpu worker the one that began last, which may have
    ended, with its result lost on the way; of an io worker that ended by itself or stalled, the coroutine whose step
    ran.
    """

    how: Literal["exit", "killed", "stalled", "lost", "quit"]
    exit: Exit | None
    running: tuple[int, int] | None = None
    began_us: int | None = None
    """When that one began."""
    limit: str | None = None
    """The limit that it has passed, in words."""


class Worker(Protocol):
    """A worker as the engine sees it: a place with slots to which messages go. Commands look the same."""

    id: str
    kind: WorkerKind
    slots: Mapping[str, int]
    """Executor → how many attempts may run at once."""
    lacks: frozenset[str]
    """Names of tasks in force that it cannot run, as their module did not load there; the same all its life."""

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages for it; never blocks, never fails (a dead worker is reported by `worker_died`)."""

    def kill(self, no: int, epoch: int) -> bool:
        """Kill what hosts this attempt, with its tree. False = cannot (a thread or coroutine in an io worker)."""

    def quit(self) -> None:
        """It has nothing left to do: let it exit."""

    def running(self) -> tuple[int, int, int] | None:
        """(no, epoch, began_us) of the begin mark of a cpu worker; None when idle or of another kind."""


class WorkerListener(Protocol):
    """Who is told of workers: the engine. Runs on the reactor, must not block."""

    def tasks_changed(self, tasks: Mapping[str, TaskSpec]) -> None:
        """These are the tasks from now on; sent before the first worker is ready, and by a reload."""

    def worker_ready(self, worker: Worker) -> None:
        """A worker takes attempts from now on."""

    def worker_retiring(self, worker: Worker) -> None:
        """No more new attempts for it; call `quit()` when its last has ended."""

    def worker_messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        """A batch of messages of attempts: Begin, Result, Items, Log, Progress, Returned."""

    def worker_died(self, worker: Worker, death: Death) -> None:
        """It is gone, all its output has been delivered; its attempts are the listener's to judge."""
