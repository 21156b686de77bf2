"""F2: the `Store` of `jobsvc.ports` in terms of two doors, one for writes and one for reads, that a store fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from jobsvc.model.audit import Head
from jobsvc.model.events import Attempt, Chunk
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job
from jobsvc.model.tokens import Token
from jobsvc.ports import (
    Append,
    Change,
    Claim,
    Durability,
    JobFilter,
    JobPage,
    Move,
    Recovered,
    Settled,
    Step,
    Submitted,
    WriteRefusal,
)
from jobsvc.store.figures import StoreFigures
from jobsvc.store.session import Refused

STUCK_S: Final = 10.0
"""In one write: most take milliseconds, those that wait for another process's lock 2 s. Longer, and the disk hangs, or
the thread does."""

_Chunks = list[Chunk]
_Attempts = list[Attempt]
_Tokens = list[Token]


class StoreFace(ABC):
    """Every method of `Store`; what each promises is said there."""

    durability: Durability
    _log = Logger()

    def __init__(self) -> None:
        self._refusals: dict[WriteRefusal, int] = dict.fromkeys(get_args(WriteRefusal), 0)
        self.refusals: Mapping[WriteRefusal, int] = self._refusals
        self.figures = StoreFigures()

    @property
    def waiting_calls(self) -> int:
        """Calls that wait for the writer."""
        return 0

    @property
    def reads(self) -> int:
        """Reads that wait or run."""
        return 0

    @property
    def broken(self) -> bool:
        """Whether nothing can be written or read any more."""
        return False

    def _count(self, refused: Sequence[Refused]) -> None:
        """Count and log what fences have refused. Runs where the answers are given: on the reactor."""
        for write in refused:
            self._refusals[write.reason] += 1
            self._log.warn(
                "{what} of job {job} (row {no}) epoch {epoch} by {owner} refused: {reason}",
                what=write.what, job=None if write.job_id is None else id_text(write.job_id), no=write.no,
                epoch=write.epoch, owner=write.owner, reason=write.reason, action="write_refused",
            )  # fmt: skip

    @abstractmethod
    def _write(self, kind: str, *args: Any) -> Deferred[Any]:
        """Run a write of `SqliteStore`."""

    @abstractmethod
    def _read(self, kind: str, *args: Any, **options: Any) -> Deferred[Any]:
        """Run a read of `Reads`."""

    @abstractmethod
    def open(self) -> Deferred[None]:
        """Open or create the database."""

    @abstractmethod
    def close(self) -> Deferred[None]:
        """Finish the writes in hand and close."""

    # -- writes
    def recover(self, now: int) -> Deferred[Recovered]:
        """Put back what was active."""
        return self._write("recover", now)

    def submit(self, jobs: Sequence[Job]) -> Deferred[list[Submitted]]:
        """Insert jobs."""
        return self._write("submit", jobs)

    def append(self, chunks: Sequence[Append]) -> Deferred[list[bool]]:
        """Store chunks of active attempts."""
        return self._write("append", chunks)

    def settle(self, ends: Sequence[Settled]) -> Deferred[list[bool]]:
        """Record outcomes."""
        return self._write("settle", ends)

    def step(self, steps: Sequence[Step]) -> Deferred[list[bool]]:
        """Change active jobs without ending them."""
        return self._write("step", steps)

    def move(self, moves: Sequence[Move]) -> Deferred[list[Job | None]]:
        """Change waiting jobs."""
        return self._write("move", moves)

    def change(self, change: Change) -> Deferred[Job | None]:
        """Other fields for a waiting job."""
        return self._write("change", change)

    def claim(self, claims: Sequence[Claim]) -> Deferred[list[list[Job]]]:
        """Queued → running."""
        return self._write("claim", claims)

    def wake(self, now: int, limit: int) -> Deferred[Mapping[str, int]]:
        """Due jobs → queued."""
        return self._write("wake", now, limit)

    def shift_retries(self, by_us: int) -> Deferred[int]:
        """Move what waits for its next try."""
        return self._write("shift_retries", by_us)

    def expire(self, now: int, limit: int) -> Deferred[list[Job]]:
        """Overdue waiting jobs → expired."""
        return self._write("expire", now, limit)

    def delete(self, job_id: bytes) -> Deferred[bool]:
        """Remove a final job."""
        return self._write("delete", job_id)

    def purge(self, before: int, limit: int) -> Deferred[int]:
        """Remove jobs that ended before a moment."""
        return self._write("purge", before, limit)

    def anchor(self, head: Head, at: int) -> Deferred[None]:
        """Remember where the audit log stands."""
        return self._write("anchor", head, at)

    def put_tokens(self, tokens: Sequence[Token]) -> Deferred[None]:
        """Store or end tokens."""
        return self._write("put_tokens", tokens)

    def touch_tokens(self, used: Mapping[str, int]) -> Deferred[None]:
        """When tokens were last used."""
        return self._write("touch_tokens", used)

    def forget_tokens(self, ended_before: int) -> Deferred[int]:
        """Remove tokens that ended before a moment."""
        return self._write("forget_tokens", ended_before)

    # -- reads
    def audit_head(self) -> Deferred[Head | None]:
        """Where the audit log stood last."""
        return self._read("audit_head")

    def get(self, job_id: bytes, *, args: bool = True, result: bool = True) -> Deferred[Job | None]:
        """One job."""
        return self._read("get", job_id, args=args, result=result)

    def get_many(self, ids: Sequence[bytes], max_bytes: int | None = None) -> Deferred[dict[bytes, Job]]:
        """Those that are there."""
        return self._read("get_many", ids, max_bytes)

    def done(self, ids: Sequence[bytes], tenant: str) -> Deferred[dict[bytes, bool]]:
        """Which of them are done."""
        return self._read("done", ids, tenant)

    def by_key(self, tenant: str, key: str) -> Deferred[Job | None]:
        """The job that holds an idempotency key."""
        return self._read("by_key", tenant, key)

    def by_keys(self, tenant: str, keys: Sequence[str]) -> Deferred[dict[str, Job]]:
        """The jobs that hold idempotency keys."""
        return self._read("by_keys", tenant, keys)

    def list(self, wanted: JobFilter) -> Deferred[JobPage]:
        """One page of jobs."""
        return self._read("list", wanted)

    def chunks(
        self, no: int, after: int, max_bytes: int, kinds: Sequence[str] = (), streams: Sequence[str] = ()
    ) -> Deferred[_Chunks]:
        """Stored events of a job."""
        return self._read("chunks", no, after, max_bytes, kinds, streams)

    def items(self, no: int, stream: str, after: int, max_bytes: int, epoch: int | None) -> Deferred[_Chunks]:
        """Stored items of one stream."""
        return self._read("items", no, stream, after, max_bytes, epoch)

    def attempts(self, no: int) -> Deferred[_Attempts]:
        """Ended attempts that were not the last."""
        return self._read("attempts", no)

    def queued(self) -> Deferred[Mapping[str, int]]:
        """How many jobs are queued, by task."""
        return self._read("queued")

    def depths(self) -> Deferred[Mapping[str, int]]:
        """How many jobs wait, by tenant."""
        return self._read("depths")

    def next_due(self) -> Deferred[int | None]:
        """The earliest moment at which `wake` or `expire` has work."""
        return self._read("next_due")

    def tokens(self) -> Deferred[_Tokens]:
        """All tokens."""
        return self._read("tokens")


def store_check(store: StoreFace, now: float) -> tuple[bool, str]:
    """Whether it is open, whole and at work, and one line about its newest commit; `now` is monotonic."""
    if not store.figures.opened:
        return False, "is not open yet"
    if store.broken:
        return False, "has failed: nothing is stored any more"
    taken = store.figures.taken
    if taken is not None and now - taken >= STUCK_S:
        return False, (
            f"has been in one write for {now - taken:.0f} s; look at the kernel's log for errors of the disk"
        )
    last, took_s = store.figures.last_commit, store.figures.last_commit_s
    words = (
        "nothing committed yet" if last is None else f"last commit {now - last:.0f} s ago, in {took_s:.4f} s"
    )
    return True, f"open; {words}; {store.waiting_calls} calls wait"
