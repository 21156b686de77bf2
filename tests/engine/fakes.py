"""What stands around the engine in its tests: workers that do what the test says, a store that answers when it says.

`Rig` is an engine with both, on a clock that only the test turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from jobsvc.engine.engine import Engine, EngineConfig
from jobsvc.model.errors import CannotWrite, Exit, JobError, JobsvcError, Kind
from jobsvc.model.events import Chunk, event_lines
from jobsvc.model.frames import (
    Again,
    Begin,
    Cancel,
    Items,
    Log,
    Message,
    Progress,
    Recall,
    Result,
    Returned,
    Start,
)
from jobsvc.model.job import Job, Submit
from jobsvc.model.task import TaskSpec
from jobsvc.ports import Death, Worker, WorkerKind
from jobsvc.store.face import StoreFace
from jobsvc.store.memory import InlineStore
from jobsvc.store.sqlite import Call
from tests.engine import tasks

T = TypeVar("T")
Key = tuple[int, int]

START_US = 1_795_000_000_000_000
SLOTS: dict[WorkerKind, dict[str, int]] = {
    "io": {"thread": 4, "loop": 8},
    "cpu": {"process": 1},
    "command": {"command": 2},
}
READ_BYTES = 65_536


def result_of(deferred: Deferred[T]) -> T:
    """The value of a Deferred that has fired; raises what it failed with."""
    got: list[T | Failure] = []
    deferred.addBoth(got.append)
    assert got, "it has not fired"
    value = got[0]
    if isinstance(value, Failure):
        value.raiseException()
    return value


def error_of(deferred: Deferred[Any]) -> JobsvcError:
    """The refusal with which a Deferred has failed."""
    try:
        value = result_of(deferred)
    except JobsvcError as error:
        return error
    raise AssertionError(f"it did not fail: {value!r}")


class FakeWorker:
    """A worker without a process: `ports.Worker` on one side, on the other the test says what happens in it.

    `handed` holds the attempts that were sent and have not been answered, in order. What it reports reaches the
    engine at once.
    """

    def __init__(self, rig: Rig, worker_id: str, kind: WorkerKind, slots: Mapping[str, int]) -> None:
        self.id = worker_id
        self.kind: WorkerKind = kind
        self.slots = slots
        self.lacks: frozenset[str] = frozenset()
        self.handed: dict[Key, Start] = {}
        self.sent: list[Message] = []
        self.killed: list[Key] = []
        self.quits = 0
        self.mark: tuple[int, int, int] | None = None
        self._rig = rig

    # -- ports.Worker

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        for message in messages:
            if isinstance(message, Start):
                self.handed[message.no, message.epoch] = message

    def kill(self, no: int, epoch: int) -> bool:
        if self.kind == "io" or (self.kind == "cpu" and (self.mark is None or self.mark[:2] != (no, epoch))):
            return False
        self.killed.append((no, epoch))
        return True

    def quit(self) -> None:
        self.quits += 1

    def running(self) -> tuple[int, int, int] | None:
        return self.mark

    # -- looking

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks of what was handed over and not answered."""
        return [start.task for start in self.handed.values()]

    @property
    def cancels(self) -> list[tuple[Key, str]]:
        """Whom it was asked to stop, and why."""
        return [((m.no, m.epoch), m.reason) for m in self.sent if isinstance(m, Cancel)]

    @property
    def recalls(self) -> int:
        """How often it was asked to give back what has not begun."""
        return sum(isinstance(m, Recall) for m in self.sent)

    def has(self, job: Job) -> bool:
        """Whether it was handed an attempt of this job that it has not answered."""
        return any(start.id == job.id for start in self.handed.values())

    def start_of(self, job: Job) -> Start:
        """The newest attempt of this job that it was handed and has not answered."""
        return next(start for start in reversed(self.handed.values()) if start.id == job.id)

    # -- reporting

    def say(self, *messages: Message) -> None:
        self._rig.engine.worker_messages(self, messages)

    def begin(self, job: Job, *, frame: bool = True) -> Start:
        """Its code starts; without a frame only the mark of a cpu worker says so."""
        start = self.start_of(job)
        now = self._rig.now_us()
        if self.kind == "cpu":
            self.mark = (start.no, start.epoch, now)
        if frame:
            self.say(Begin(start.no, start.epoch, now))
        return start

    def _ended(self, start: Start) -> None:
        del self.handed[start.no, start.epoch]
        if self.mark is not None and self.mark[:2] == (start.no, start.epoch):
            self.mark = None

    def succeed(self, job: Job, body: bytes = b"null", run_s: float = 0.01) -> None:
        start = self.start_of(job)
        self._ended(start)
        self.say(Result(start.no, start.epoch, self._rig.now_us(), run_s, None, 0, body))

    def fail(
        self,
        job: Job,
        kind: Kind = "task_error",
        message: str = "broken",
        run_s: float = 0.01,
        again: Again | None = None,
    ) -> None:
        start = self.start_of(job)
        self._ended(start)
        error = JobError(kind, "ValueError" if kind == "task_error" else None, message)
        self.say(Result(start.no, start.epoch, self._rig.now_us(), run_s, error, again=again))

    def snooze(self, job: Job, after_s: float | None = None, at_us: int | None = None) -> None:
        """Its code asks to be run later; it has not failed."""
        start = self.start_of(job)
        self._ended(start)
        again = Again("snooze", after_s, at_us)
        self.say(Result(start.no, start.epoch, self._rig.now_us(), 0.01, again=again))

    def give_back(self, *jobs: Job) -> None:
        """These have not begun and will not."""
        starts = [self.start_of(job) for job in jobs]
        for start in starts:
            self._ended(start)
        self.say(Returned([(start.no, start.epoch) for start in starts]))

    def items(self, job: Job, *values: object, stream: str = "out") -> None:
        start = self.start_of(job)
        self.say(
            Items(start.no, start.epoch, stream, len(values), 0, b"\n".join(map(msgspec.json.encode, values)))
        )

    def log(self, job: Job, *lines: str) -> None:
        start = self.start_of(job)
        body = b"\n".join(
            msgspec.json.encode({"level": "info", "message": line, "fields": {}, "source": "stdout"})
            for line in lines
        )
        self.say(Log(start.no, start.epoch, len(lines), 0, body))

    def progress(self, job: Job, n: int, of: int) -> None:
        start = self.start_of(job)
        self.say(Progress(start.no, start.epoch, msgspec.json.encode({"n": n, "of": of, "note": None})))

    def die(self, death: Death) -> None:
        """It is gone; what its mark names was running."""
        if self.mark is not None:
            death.running = self.mark[:2]
        self.handed.clear()
        self.mark = None
        self._rig.engine.worker_died(self, death)

    def crash(self, signal: str = "SIGSEGV") -> None:
        self.die(Death("exit", Exit(signal=11, name=signal)))

    def lose(self) -> None:
        self.die(Death("lost", Exit(signal=9, name="SIGKILL")))


class PumpedStore(InlineStore):
    """A store whose writes gather until `pump`, which runs them as one group: what a store with a thread does.

    Reads are answered at once from what is committed, unless `hold_reads` is set. `fail_next` fails the next groups
    as a full disk does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Call, Deferred[Any]]] = []
        self.held = True
        self.hold_reads = False
        self._reads: list[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = []
        self._full = 0

    def _write(self, kind: str, *args: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.waiting.append((Call(kind, args), answer))
        if not self.held:
            self.pump()
        return answer

    def _read(self, kind: str, *args: Any, **options: Any) -> Deferred[Any]:
        if not self.hold_reads:
            return super()._read(kind, *args, **options)
        answer: Deferred[Any] = Deferred()
        self._reads.append((answer, lambda: InlineStore._read(self, kind, *args, **options)))
        return answer

    def pump_reads(self) -> None:
        """Answer the reads that wait, from what is committed now."""
        reads, self._reads = self._reads, []
        for answer, read in reads:
            answer.callback(result_of(read()))

    @property
    def kinds(self) -> list[str]:
        """What waits, by the names of the calls."""
        return [call.kind for call, _ in self.waiting]

    def fail_next(self, groups: int = 1) -> None:
        self._full = groups

    def pump(self) -> None:
        """Commit what waits, then answer in the order of the calls. What this causes waits for the next pump."""
        group, self.waiting = self.waiting, []
        if not group:
            return
        if self._full:
            self._full -= 1
            for _, answer in group:
                answer.errback(CannotWrite("disk_full", "no space left on the device"))
            return
        answers = self._store.group([call for call, _ in group])
        for (_, answer), value in zip(group, answers, strict=True):
            answer.callback(value)

    def settle_down(self) -> None:
        """Pump until nothing waits."""
        while self.waiting:
            self.pump()

    def release(self) -> None:
        """From now on answer at once."""
        self.held = False
        self.settle_down()


class Rig:
    """An engine on a clock of its own, with the tasks of `tests.engine.tasks`. Jitter takes the longest delay.

    Args:
        store: opened here; one that answers at once by default.
    """

    def __init__(self, store: StoreFace | None = None, config: EngineConfig | None = None) -> None:
        self.clock = Clock()
        self.store = InlineStore() if store is None else store
        self.stepped_s = (
            0.0  # how far somebody has set the wall clock; the engine's own clock goes on as it was
        )
        self.worn: list[Worker] = []
        self.workers: list[FakeWorker] = []
        result_of(self.store.open())
        self.engine = Engine(
            self.store,
            self.clock,
            self.now_us,
            Random(7).getrandbits,
            lambda low, high: high,
            config or EngineConfig(),
            self.worn.append,
        )
        self.engine.tasks_changed(tasks.ALL)
        result_of(Deferred.fromCoroutine(self.engine.start()))

    def now_us(self) -> int:
        return START_US + round((self.clock.seconds() + self.stepped_s) * 1_000_000)

    def close(self) -> None:
        """Stop the engine: after that its clock must be empty."""
        self.engine.close()
        result_of(self.store.close())

    # -- the world

    def worker(
        self,
        kind: WorkerKind = "cpu",
        slots: Mapping[str, int] | None = None,
        lacks: Iterable[str] = (),
    ) -> FakeWorker:
        """A new worker that is ready."""
        worker = FakeWorker(
            self, f"{kind}{len(self.workers) + 1}", kind, dict(SLOTS[kind] if slots is None else slots)
        )
        worker.lacks = frozenset(lacks)
        self.workers.append(worker)
        self.engine.worker_ready(worker)
        return worker

    def job(self, task: str, args: object = None, *, header: str | None = None, **fields: Any) -> Job:
        """A job that is prepared and not submitted."""
        body = {"task": task, **({} if args is None else {"args": args}), **fields}
        submit = msgspec.json.decode(msgspec.json.encode(body), type=Submit)
        return self.engine.prepare(submit, "default", header)

    def submit(self, task: str, args: object = None, **fields: Any) -> Job:
        """A new job, committed."""
        [answer] = result_of(self.engine.submit([self.job(task, args, **fields)]))
        assert answer.job is not None
        assert not answer.replayed
        return answer.job

    def submit_many(self, task: str, count: int, **fields: Any) -> list[Job]:
        """So many jobs of one task, in one call."""
        answers = result_of(self.engine.submit([self.job(task, **fields) for _ in range(count)]))
        return [answer.job for answer in answers if answer.job is not None]

    def reload(self, specs: Mapping[str, TaskSpec]) -> None:
        """Other tasks are in force; the workers stay as they are."""
        self.engine.tasks_changed(specs)

    def timed(self, worker: FakeWorker, task: str, run_s: float) -> None:
        """Let the engine learn how long a task takes."""
        job = self.submit(task)
        worker.succeed(job, run_s=run_s)

    # -- looking

    def get(self, job: Job) -> Job:
        """The job as the edge would show it."""
        return result_of(self.engine.get(job.id, "default"))

    def state(self, job: Job) -> tuple[str, str | None]:
        """(state, reason)."""
        found = self.get(job)
        return found.state, found.reason

    def error(self, job: Job) -> JobError:
        """What ended it."""
        text = self.get(job).error
        assert text is not None
        return msgspec.json.decode(text, type=JobError)

    def cancel(self, job: Job, mode: str = "polite", grace_s: float = 5.0) -> Deferred[tuple[Job, bool]]:
        return self.engine.cancel(job.id, "default", mode, grace_s)

    def read(
        self, job: Job, after: int = 0, kinds: Sequence[str] = (), streams: Sequence[str] = ()
    ) -> list[Event]:
        """The events there are now."""
        reader = self.engine.reader(self.get(job), after, kinds, streams, follow=False)
        return list(read_all(reader.read, after))

    def states(self, job: Job) -> list[str]:
        """Its states, from its events."""
        return [event.data["state"] for event in self.read(job, kinds=("state",)) if event.kind == "state"]

    def free(self) -> bool:
        """Whether no slot of any worker and no cap of any task is taken."""
        board = self.engine.board
        return (
            all(not any(seat.used.values()) and not seat.claiming for seat in board.seats.values())
            and not any(board.running.values())
            and not board.active
        )


Slow = tuple[Rig, PumpedStore]


def at_once(slow: Slow) -> tuple[Rig, PumpedStore]:
    """The store answers at once until the test says `held`."""
    rig, store = slow
    store.held = False
    return rig, store


class Event(msgspec.Struct):
    """One line of an NDJSON stream of events."""

    seq: int
    at: str
    kind: str
    data: Any
    stream: str | None = None
    n: int | None = None


def events_of(chunks: list[Chunk], after: int = 0) -> list[Event]:
    """The events of these chunks, as the edge writes them."""
    return [
        msgspec.json.decode(line, type=Event) for chunk in chunks for _, _, line in event_lines(chunk, after)
    ]  # fmt: skip


def read_all(read: Callable[[int], Any], after: int = 0, max_bytes: int = READ_BYTES) -> Iterator[Event]:
    """Read pages until there is no more; each must be there at once."""
    while chunks := result_of(Deferred.fromCoroutine(read(max_bytes))):
        yield from events_of(chunks, after)
