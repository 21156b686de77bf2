"""Many jobs of every kind through the store on a recorded file system, and what it acknowledged when.

`play` is a small engine without workers: it submits, claims, appends, settles, steps, cancels and removes by chance,
grouped as the daemon's writer groups them, closes and opens the store on the way. Everything is drawn from the seed.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from jobsvc.model.events import Attempt, Chunk
from jobsvc.model.job import Job
from jobsvc.model.states import State
from jobsvc.ports import Append, Claim, Durability, Move
from jobsvc.store import opening
from jobsvc.store.sqlite import Call, SqliteStore
from tests.contract.store_harness import NOW, end_of, job_of, step_of
from tests.torture.filelog import FileLog, Operation
from tests.torture.recorded import connect_to

DATABASE: Final = "jobs.db"
CHECKPOINT_PAGES: Final = 40
"""In place of the store's 4,000, so that a hundred jobs see a dozen checkpoints."""
SUBMITS_MAX: Final = 4
"""Jobs handed in by one group."""
RUNNING_MAX: Final = 12
TASKS: Final = ("count", "render")
LARGE_BYTES: Final = 5_000
"""Over what the row itself holds: such a text lies in `payload`."""
HUGE_BYTES: Final = 15_000
_SECOND: Final = 1_000_000
_TABLES: Final = ("jobs", "chunks", "attempts", "payload", "policies")

Outcome = tuple[State, bytes | None, bytes | None]
"""State, result and error of a job that has ended."""


EMPTY: Final = hashlib.blake2b(msgspec.msgpack.encode([]) * len(_TABLES), digest_size=16).digest()
"""What `contents` says of a database without jobs."""


class Entry(NamedTuple):
    """One acknowledged call: what it made true.

    `asked_at`, `told_at`: operations done when it began and when it was answered.
    """

    asked_at: int
    told_at: int
    accepted: frozenset[bytes] = frozenset()
    outcomes: tuple[tuple[bytes, Outcome], ...] = ()
    removed: frozenset[bytes] = frozenset()
    contents: bytes = b""


class Played(NamedTuple):
    """A run: every operation on its files, and its ledger."""

    operations: list[Operation]
    ledger: list[Entry]


class Mutation(NamedTuple):
    """A bug put into the store on purpose.

    `edit`: what is run in place of a statement. `early`: answers are given before COMMIT.
    """

    edit: Callable[[str], str] = str
    early: bool = False


def contents(db: sqlite3.Connection) -> bytes:
    """A digest of all that the database says about jobs; a database without tables says nothing."""
    digest = hashlib.blake2b(digest_size=16)
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()}
    for table in _TABLES:
        rows = db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() if table in there else []
        digest.update(msgspec.msgpack.encode(rows))
    return digest.digest()


def play(folder: Path, seed: int, jobs: int, durability: Durability, mutation: Mutation) -> Played:
    """Put `jobs` jobs through a store in `folder`, which is empty."""
    usual = opening.CHECKPOINT_PAGES
    opening.CHECKPOINT_PAGES = CHECKPOINT_PAGES  # type: ignore[misc]
    log = FileLog()
    try:
        player = _Player(log, str(folder / DATABASE), random.Random(seed), durability, mutation)
        player.play(jobs)
        return Played(log.operations, player.ledger)
    finally:
        log.close()
        opening.CHECKPOINT_PAGES = usual  # type: ignore[misc]


class _Player:
    def __init__(
        self, log: FileLog, path: str, rng: random.Random, durability: Durability, mutation: Mutation
    ) -> None:
        self._log, self._rng, self._mutation = log, rng, mutation
        self._store = SqliteStore(path, durability, connect_to(log, mutation.edit, self._committing))
        self.ledger: list[Entry] = []
        self._early: int | None = None
        self._now = NOW
        self._accepted: list[Job] = []
        self._waiting: dict[int, Job] = {}
        self._running: dict[int, Job] = {}
        self._ended: dict[bytes, Outcome] = {}
        self._to_end: list[Job] = []

    def play(self, jobs: int) -> None:
        self._open()
        restarts = {jobs // 3, 2 * jobs // 3}
        while len(self._accepted) < jobs or self._waiting or self._running:
            self._now += _SECOND
            self._turn(jobs - len(self._accepted))
            passed = {at for at in restarts if at <= len(self._accepted)}
            if passed:
                restarts -= passed
                self._store.close()
                self._open()
        self._remove()
        self._store.close()

    def _open(self) -> None:
        self._store.open()
        self._call("recover", self._now)

    # -- the ledger
    def _committing(self) -> None:
        self._early = len(self._log.operations)

    def _acknowledge(self, asked_at: int, **truths: Any) -> None:
        told_at = len(self._log.operations)
        if self._mutation.early and self._early is not None:
            told_at = self._early
        self.ledger.append(Entry(asked_at, told_at, contents=contents(self._store._db), **truths))

    def _note(self, job: Job) -> None:
        """How a job stands after a call that did not say it in full."""
        self._waiting.pop(job.no, None)
        if job.done:
            self._ended[job.id] = (job.state, job.result, job.error)
        elif job.owner is None:
            self._waiting[job.no] = job
        else:
            self._running[job.no] = job

    def _group(self, calls: list[Call]) -> list[Any]:
        asked_at, before = len(self._log.operations), set(self._ended)
        accepted = len(self._accepted)
        answers = self._store.group(calls)
        for call, answer in zip(calls, answers, strict=True):
            getattr(self, f"_{call.kind}_told")(call.args, answer)
        self._acknowledge(
            asked_at,
            accepted=frozenset(job.id for job in self._accepted[accepted:]),
            outcomes=tuple((job_id, end) for job_id, end in self._ended.items() if job_id not in before),
        )
        return answers

    def _call(self, kind: str, *args: Any) -> Any:
        return self._group([Call(kind, args)])[0]

    # -- one turn of the engine
    def _turn(self, left: int) -> None:
        rng = self._rng
        calls = []
        if left and rng.random() < 0.7:
            calls.append(Call("submit", (self._new_jobs(min(left, rng.randint(1, SUBMITS_MAX))),)))
        picked = rng.sample(list(self._running.values()), min(len(self._running), rng.randint(0, 6)))
        if picked and (appends := [self._append(job) for job in picked if rng.random() < 0.4]):
            calls.append(Call("append", (appends,)))
        # One job takes one way in one group.
        ways: dict[str, list[Any]] = {"settle": [], "step": []}
        for job in picked:
            kind, write = self._way(job)
            ways[kind].append(write)
        calls += [Call(kind, (writes,)) for kind, writes in ways.items() if writes]
        queued = [job for job in self._waiting.values() if job.state == "queued"]
        if queued and rng.random() < 0.15:
            calls.append(Call("move", ([self._cancel(rng.choice(queued))],)))
        room = RUNNING_MAX - len(self._running)
        if room > 0 and rng.random() < 0.8:
            wants = dict.fromkeys(TASKS, room)
            owner = f"cpu-{rng.randint(1, 2)}"
            calls.append(Call("claim", ([Claim(owner, "process", wants, room, self._now)],)))
        if calls:
            self._group(calls)
        if rng.random() < 0.3:
            self._call("wake", self._now, 100)
            self._call("expire", self._now, 100)

    def _new_jobs(self, number: int) -> list[Job]:
        rng = self._rng
        jobs = []
        for _ in range(number):
            fields: dict[str, Any] = {"task": rng.choice(TASKS), "created_at": self._now}
            fields["args"] = b'"%s"' % rng.randbytes(self._size() // 2).hex().encode()
            if rng.random() < 0.2:
                fields |= {"state": "running", "owner": "cpu-3", "epoch": 1, "attempt": 1, "claim_seq": 2,
                           "seq": 2, "revision": 2, "claimed_at": self._now}  # fmt: skip
            elif rng.random() < 0.2:
                due = self._now + 3 * _SECOND
                fields |= {"state": "scheduled", "reason": "run_at", "run_at": due, "due_at": due}
            elif rng.random() < 0.1:
                fields["expires_at"] = self._now + _SECOND
            if rng.random() < 0.3:
                key = rng.randbytes(8).hex()
                fields |= {"key": key, "key_hash": hashlib.sha256(key.encode()).digest()}
            if rng.random() < 0.15:
                fields["policy"] = b'{"on_lost":"fail"}'
            jobs.append(job_of(id=rng.randbytes(16), **fields))
        keyed = [job for job in self._accepted if job.key is not None]
        if keyed and rng.random() < 0.3:  # a client repeats itself
            first = rng.choice(keyed)
            jobs.append(job_of(id=rng.randbytes(16), key=first.key, key_hash=first.key_hash))
        return jobs

    def _size(self) -> int:
        return self._rng.choices((20, 600, LARGE_BYTES, HUGE_BYTES), (70, 20, 8, 2))[0]

    def _append(self, job: Job) -> Append:
        job.seq += 1
        lines = self._rng.randbytes(self._size() // 2).hex().encode()
        kind, stream = self._rng.choice((("log", None), ("item", "out"), ("progress", None)))
        if kind == "progress":
            job.revision += 1
            lines = b'{"n":%d,"of":null,"note":null}' % job.seq
        chunk = Chunk(no=job.no, seq=job.seq, count=1, kind=kind, epoch=job.epoch, at=self._now, body=lines,
                      stream=stream)  # fmt: skip
        return Append(chunk, job.owner or "", job.revision if kind == "progress" else 0)

    def _way(self, job: Job) -> tuple[str, Any]:
        """How a running job goes on: it ends, waits for another attempt, or is being stopped."""
        at = {"at": self._now}
        if job.state == "stopping":
            return "settle", end_of(job, "cancelled", reason="cancel_asked", finished_at=self._now)
        die = self._rng.random()
        if die < 0.6:
            result = b'"%s"' % self._rng.randbytes(self._size() // 2).hex().encode()
            return "settle", end_of(job, result=result, finished_at=self._now)
        if die < 0.7:
            return "settle", end_of(job, "failed", finished_at=self._now)
        if die < 0.8:
            return "step", step_of(job, "stopping", reason="cancel_asked", **at)
        record = Attempt(epoch=job.epoch, attempt=job.attempt, state="failed", began_at=NOW, finished_at=self._now,
                         worker=job.owner, error=b'{"kind":"task_error"}')  # fmt: skip
        if die < 0.9:
            due = self._now + 2 * _SECOND
            return "step", step_of(job, "retrying", reason="retry", due_at=due, record=record, **at)
        return "step", step_of(job, "queued", reason="recalled", attempt=job.attempt - 1, **at)

    def _cancel(self, job: Job) -> Move:
        error = b'{"kind":"cancelled"}'
        return Move(
            id=job.id, frm=("queued",), to="cancelled", reason="cancel_asked", at=self._now, error=error
        )

    # -- what the answers say
    def _submit_told(self, args: Any, answers: list[Any]) -> None:
        for asked, answer in zip(args[0], answers, strict=True):
            assert answer.job is not None, "a key was taken by another body"
            assert answer.replayed == (answer.job.id != asked.id)
            if not answer.replayed:
                self._accepted.append(asked)
                self._note(asked)

    def _append_told(self, args: Any, answers: list[bool]) -> None:
        assert all(answers)

    def _settle_told(self, args: Any, answers: list[bool]) -> None:
        assert all(answers)
        for end in args[0]:
            job = self._running.pop(end.no)
            self._ended[job.id] = (end.state, end.result, end.error)

    def _step_told(self, args: Any, answers: list[bool]) -> None:
        assert all(answers)
        for step in args[0]:
            self._reread(self._running.pop(step.no))

    def _move_told(self, args: Any, answers: list[Job | None]) -> None:
        for job in answers:
            assert job is not None
            self._note(job)

    def _claim_told(self, args: Any, answers: list[list[Job]]) -> None:
        for job in answers[0]:
            self._waiting.pop(job.no, None)  # a step of the same group may just have put it back
            self._running[job.no] = job

    def _wake_told(self, args: Any, answer: object) -> None:
        for job in list(self._waiting.values()):
            self._reread(job)

    def _expire_told(self, args: Any, answers: list[Job]) -> None:
        for job in answers:
            self._note(job)

    def _recover_told(self, args: Any, answer: object) -> None:
        for job in list(self._running.values()):
            del self._running[job.no]
            self._reread(job)

    def _reread(self, job: Job) -> None:
        stored = self._store.reads.get(job.id)
        assert stored is not None
        self._note(stored)

    # -- the end
    def _remove(self) -> None:
        """Delete some, then purge the older half, as retention does."""
        ended = list(self._ended)
        for job_id in self._rng.sample(ended, len(ended) // 10):
            asked_at = len(self._log.operations)
            assert self._store.delete(job_id)
            self._acknowledge(asked_at, removed=frozenset((job_id,)))
        there = {job.id for job in self._store.reads.get_many(ended).values()}
        asked_at = len(self._log.operations)
        self._store.purge(self._now - 5 * _SECOND, len(ended) // 2)
        left = set(self._store.reads.get_many(ended))
        self._acknowledge(asked_at, removed=frozenset(there - left))
