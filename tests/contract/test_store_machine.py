"""Each store against the table of states: whatever is asked of it in whatever order, only the table's ways are gone."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.python.failure import Failure

from jobsvc.model.events import Attempt
from jobsvc.model.job import Job
from jobsvc.model.states import ACTIVE, FINAL, STATES, WAITING, State, allowed
from jobsvc.ports import Change, Claim, Durability, Move
from jobsvc.store.memory import InlineStore
from jobsvc.store.sqlite import SqliteStore
from jobsvc.store.threaded import ThreadedStore
from tests.contract.store_harness import NOW, Held, PumpedReactor, end_of, job_of, step_of
from tests.contract.test_store_events import append_of

TASKS = ("one", "two")
OWNERS = ("cpu-1", "cpu-2")
PLACES = st.integers(0, 1 << 20)
TIMED: tuple[State, ...] = ("scheduled", "retrying")
ON_FILE_EXAMPLES = 5
"""Of the stores on files, which run the same statements: what differs is where, and in what groups."""


class StoreMachine(RuleBasedStateMachine):
    """Random writes, right and wrong ones. `rows` is what is stored, read after every write that changed something."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.made()
        self.held(self.held.store.open())
        self.rows: dict[bytes, Job] = {}
        self.ahead: dict[bytes, int] = {}
        self.patched: set[bytes] = set()  # of these the first event is stored
        self.now = NOW

    def made(self) -> Held:
        """The store under test, not open yet."""
        raise NotImplementedError

    def reopen(self) -> None:
        """The daemon ends and starts again; what is in memory alone would not outlive that."""

    def teardown(self) -> None:
        self.held(self.held.store.close())

    # -- what the rules share
    def pick(self, place: int, states: tuple[State, ...]) -> Job | None:
        among = [job for job in self.rows.values() if job.state in states]
        return among[place % len(among)] if among else None

    def changed(self, job_id: bytes, to: State | None = None) -> None:
        """A write of this job was accepted: the way must be one of the table, and numbers must have grown."""
        before, after = self.rows[job_id], self.held(self.held.store.get(job_id))
        assert after is not None
        fields = before.state == after.state and after.state in WAITING  # other ones, by a client
        assert fields or allowed(before.state, after.state), (before.state, after.state)
        assert to in (None, after.state)
        assert after.revision == before.revision + 1
        assert after.seq > before.seq
        assert after.epoch == before.epoch + (after.state == "running")
        assert (after.owner is None) == (after.state in WAITING) or after.state in FINAL
        self.rows[job_id] = after
        self.ahead[job_id] = after.seq

    def check_refused(self, job_id: bytes) -> None:
        assert self.held(self.held.store.get(job_id)) == self.rows[job_id]

    # -- what happens
    @rule(
        task=st.sampled_from(TASKS), priority=st.integers(-2, 2), later=st.booleans(), expires=st.booleans()
    )
    def submit(self, task: str, priority: int, *, later: bool, expires: bool) -> None:
        due = self.now + 20 if later else None
        state: State = "scheduled" if later else "queued"
        job = job_of(
            task=task,
            priority=priority,
            state=state,
            due_at=due,
            expires_at=self.now + 40 if expires else None,
        )
        (stored,) = self.held.submitted(job)
        self.rows[stored.id] = self.held.row(stored)
        self.ahead[stored.id] = 1

    @rule(
        tasks=st.sets(st.sampled_from(TASKS), min_size=1),
        limit=st.integers(1, 4),
        owner=st.sampled_from(OWNERS),
    )
    def claim(self, tasks: set[str], limit: int, owner: str) -> None:
        queued = [job for job in self.rows.values() if job.state == "queued" and job.task in tasks]
        expected = [job.id for job in sorted(queued, key=lambda job: (-job.priority, job.no))][:limit]
        (jobs,) = self.held(
            self.held.store.claim([Claim(owner, "process", dict.fromkeys(tasks, limit), limit, self.now)])
        )
        assert [job.id for job in jobs] == expected
        for job in jobs:
            self.changed(job.id, "running")
            assert self.rows[job.id] == job

    @rule(place=PLACES, to=st.sampled_from(STATES), wrong=st.sampled_from(["", "", "epoch", "owner"]))
    def settle(self, place: int, to: State, wrong: str) -> None:
        job = self.pick(place, STATES)
        if job is None or to not in FINAL:
            return
        fields: dict[str, Any] = {"seq": self.ahead[job.id] + 1}
        fields |= (
            {"epoch": job.epoch - 1} if wrong == "epoch" else {"owner": "else"} if wrong == "owner" else {}
        )
        (written,) = self.held(self.held.store.settle([end_of(job, to, **fields)]))
        assert written == (job.state in ACTIVE and not wrong and allowed(job.state, to))
        self.changed(job.id, to) if written else self.check_refused(job.id)

    @rule(
        place=PLACES,
        to=st.sampled_from(["stopping", "retrying", "queued"]),
        counts=st.booleans(),
        wrong=st.booleans(),
    )
    def step(self, place: int, to: State, *, counts: bool, wrong: bool) -> None:
        job = self.pick(place, STATES)
        if job is None:
            return
        record = Attempt(
            epoch=job.epoch, attempt=job.attempt, state="lost", began_at=None, finished_at=self.now, worker=job.owner,
            error=None,
        )  # fmt: skip
        keep = counts and to != "stopping"
        fields: dict[str, Any] = {
            "seq": self.ahead[job.id] + 1,
            "due_at": self.now + 20 if to == "retrying" else None,
        }
        fields |= {"epoch": job.epoch + 1} if wrong else {}
        (written,) = self.held(
            self.held.store.step([step_of(job, to, record=record if keep else None, **fields)])
        )
        assert written == (job.state in ACTIVE and not wrong and allowed(job.state, to))
        self.changed(job.id, to) if written else self.check_refused(job.id)

    @rule(place=PLACES, lines=st.integers(1, 3), wrong=st.booleans())
    def append(self, place: int, lines: int, *, wrong: bool) -> None:
        job = self.pick(place, STATES)
        if job is None:
            return
        body = b"\n".join([b"1"] * lines)
        fields = {"owner": "else"} if wrong else {}
        given = append_of(job, self.ahead[job.id] + 1, body, **fields)
        (written,) = self.held(self.held.store.append([given]))
        assert written == (job.state in ACTIVE and not wrong)
        if written:
            self.ahead[job.id] += lines

    @rule(
        place=PLACES,
        frm=st.sets(st.sampled_from(STATES)),
        to=st.sampled_from(["cancelled", "queued", "held"]),
    )
    def move(self, place: int, frm: set[State], to: State) -> None:
        job = self.pick(place, STATES)
        if job is None:
            return
        (moved,) = self.held(
            self.held.store.move(
                [Move(id=job.id, frm=tuple(frm), to=to, reason=None, at=self.now, error=b"{}")]
            )
        )
        assert (moved is not None) == (job.state in WAITING and job.state in frm and allowed(job.state, to))
        self.changed(job.id, to) if moved else self.check_refused(job.id)

    @rule(
        place=PLACES,
        priority=st.integers(-2, 2),
        start=st.booleans(),
        due=st.none() | st.integers(1, 60),
        behind=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def change(self, place: int, priority: int, *, start: bool, due: int | None, behind: int) -> None:
        job = self.pick(place, STATES)
        if job is None:
            return
        due_at = None if start or due is None or job.due_at is None else self.now + due
        wanted = Change(
            id=job.id, revision=job.revision - behind, submitted=b"{}", to="queued" if start else None,
            reason="operator", at=self.now, priority=priority, run_at=job.run_at, due_at=due_at,
            expires_at=job.expires_at, policy=job.policy, labels=b'{"a":"b"}',
        )  # fmt: skip
        changed = self.held(self.held.store.change(wanted))
        fits = job.state in WAITING if not start else job.state in TIMED and job.due_at is not None
        assert (changed is not None) == (fits and not behind)
        if changed is None:
            self.check_refused(job.id)
            return
        self.changed(job.id, "queued" if start else job.state)
        self.patched.add(job.id)
        assert (changed.priority, changed.labels) == (priority, b'{"a":"b"}')
        assert changed.due_at == (None if start else job.due_at if due_at is None else due_at)

    @rule(after=st.integers(0, 30))
    def time_passes(self, after: int) -> None:
        self.now += after
        due = [
            job.id
            for job in self.rows.values()
            if job.state in TIMED and job.due_at is not None and job.due_at <= self.now
        ]
        assert sum(self.held(self.held.store.wake(self.now, 1000)).values()) == len(due)
        for job_id in due:
            self.changed(job_id, "queued")
        late = {
            job.id
            for job in self.rows.values()
            if job.state in WAITING and job.expires_at is not None and job.expires_at <= self.now
        }
        assert {job.id for job in self.held(self.held.store.expire(self.now, 1000))} == late
        for job_id in late:
            self.changed(job_id, "expired")

    @rule()
    def restart(self) -> None:
        active = [job.id for job in self.rows.values() if job.state in ACTIVE]
        self.reopen()
        done = self.held(self.held.store.recover(self.now))
        assert done.queued + done.failed + done.cancelled == len(active)
        for job_id in active:
            self.changed(job_id)
        assert not any(job.state in ACTIVE for job in self.rows.values())

    @precondition(lambda self: self.rows)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        job = self.pick(place, STATES)
        assert job is not None
        gone = self.held(self.held.store.delete(job.id))
        assert gone == (job.state in FINAL)
        if gone:
            del self.rows[job.id]
        else:
            self.check_refused(job.id)

    # -- what always holds
    @invariant()
    def counts_agree(self) -> None:
        queued = dict.fromkeys(TASKS, 0)
        for job in self.rows.values():
            queued[job.task] += job.state == "queued"
        assert self.held(self.held.store.queued()) == {task: n for task, n in queued.items() if n}
        waiting = sum(job.state in ("queued", *TIMED) for job in self.rows.values())
        assert self.held(self.held.store.depths()) == ({"default": waiting} if waiting else {})

    @invariant()
    def events_have_no_gap(self) -> None:
        for job in self.rows.values():
            first = 1 if job.id in self.patched else 2
            assert self.held.event_numbers(job) == list(range(first, self.ahead[job.id] + 1))


class InMemory(StoreMachine):
    """`durability=memory`: everything at once, where it is called."""

    def made(self) -> Held:
        return Held(InlineStore(), PumpedReactor())


class OnFile(StoreMachine):
    """A database file, closed and opened again at every restart."""

    def __init__(self) -> None:
        self.folder = TemporaryDirectory(prefix="jobsvc-store-machine-")
        self.fatal: list[Failure] = []
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()
        assert not self.fatal

    def reopen(self) -> None:
        self.held(self.held.store.close())
        self.held = self.made()
        self.held(self.held.store.open())

    @property
    def file(self) -> str:
        """The database."""
        return str(Path(self.folder.name) / "jobsvc.db")


class Plain(InlineStore):
    """The blocking store on a file, without threads."""

    durability: Durability = "process"

    def __init__(self, file: str) -> None:
        super().__init__()
        self._store = SqliteStore(file, "process")


class Blocking(OnFile):
    """What the thread of a daemon's writer runs."""

    def made(self) -> Held:
        return Held(Plain(self.file), PumpedReactor())


class Threaded(OnFile):
    """What a daemon uses: groups on the writer's thread, reads on others."""

    def made(self) -> Held:
        reactor = PumpedReactor()
        return Held(ThreadedStore(self.file, "process", reactor.provided, self.fatal.append), reactor)


usual = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
InMemory.TestCase.settings = usual
Blocking.TestCase.settings = Threaded.TestCase.settings = settings(usual, max_examples=ON_FILE_EXAMPLES)
TestInMemory = InMemory.TestCase
TestBlocking = Blocking.TestCase
TestThreaded = Threaded.TestCase
