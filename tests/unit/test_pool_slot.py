"""The life of a slot and of a generation, with made-up workers and a Clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from jobsvc.model.errors import Exit, JobsvcError
from jobsvc.model.frames import Manifest, Message, Pong
from jobsvc.model.task import TaskSpec
from jobsvc.pool.backoff import RESTART_BASE_S
from jobsvc.pool.config import PoolConfig
from jobsvc.pool.generation import ModuleLoadError
from jobsvc.pool.plan import HostKind
from jobsvc.pool.process import Owner, WorkerProcess
from jobsvc.pool.renewal import ReloadReport
from jobsvc.pool.supervision import Pool
from jobsvc.ports import Death, Worker, WorkerKind
from tests.conftest import FlushFailures

CRASH = Death("exit", Exit(code=3))
QUIT = Death("quit", Exit(code=0))
KILLED = Death("quit", Exit(signal=9, name="SIGKILL"))


def spec(name: str, **more: Any) -> TaskSpec:
    return TaskSpec(
        name=name,
        module="m",
        executor="process",
        args_tree=b"",
        args_schema=b"{}",
        result_schema=b"{}",
        **more,
    )


class FakeProcess:
    """A worker process that does what the test says."""

    def __init__(
        self, pool: FakePool, worker_id: str, kind: HostKind, owner: Owner, without: frozenset[str]
    ) -> None:
        self.id = worker_id
        self.kind: WorkerKind = kind
        self.slots: Mapping[str, int] = {}
        self.lacks: frozenset[str] = frozenset()
        self.loading: str | None = None
        self.without = without
        self.pid: int | None = None
        self.started_us = 0
        self.did: list[str] = []
        self.pool = pool
        self.owner = owner

    def start(self) -> None:
        if self.pool.no_processes:
            raise BlockingIOError("no process")
        self.pool.processes.append(self)

    def load(self, *names: str) -> None:
        """Its modules are `m` with the tasks of these names, and `other` with its own."""
        modules = {"m": list(names), "other": ["other"]}
        self.loaded({module: modules[module] for module in modules if module in self.pool.names})

    def loaded(self, modules: dict[str, list[str]], **errors: str) -> None:
        """These modules have loaded, those have not."""
        self.loading = None
        self.owner.loaded(
            Manifest([spec(name) for group in modules.values() for name in group], modules, errors)
        )

    def die(self, death: Death = CRASH) -> None:
        self.pool.processes.remove(self)
        self.owner.ended(death)

    def ready(self) -> None:
        self.did.append("ready")

    def quit(self) -> None:
        self.owner.asked_to_quit()

    def dismiss(self) -> None:
        self.did.append("dismiss")

    def destroy(self, fate: str) -> None:
        self.did.append("destroy")

    def printed_tail(self) -> str:
        return "last words"


class FakePool(Pool):
    """A pool of made-up processes."""

    def __init__(self, cpu_workers: int = 1, names: tuple[str, ...] = ("m",), **more: Any) -> None:
        self.names = names
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.news: list[Any] = []
        self.no_processes = False
        config = PoolConfig(modules=names, cwd=Path("/"), cpu_workers=cpu_workers, **more)
        super().__init__(
            cast("Any", self.clock),
            self,
            config,
            boot="0123456789abcdef",
            environ={},
            monotonic=self.clock.seconds,
            now_us=lambda: 0,
            uniform=lambda low, high: high,
        )

    def _hire(self, kind: HostKind, owner: Owner, without: frozenset[str]) -> WorkerProcess:
        self._serials[kind] += 1
        return cast("WorkerProcess", FakeProcess(self, f"{kind}-{self._serials[kind]}", kind, owner, without))

    # -- WorkerListener

    def tasks_changed(self, tasks: Mapping[str, TaskSpec]) -> None:
        self.news.append(("tasks", sorted(tasks)))

    def worker_ready(self, worker: Worker) -> None:
        self.news.append(("ready", worker.id))

    def worker_retiring(self, worker: Worker) -> None:
        self.news.append(("retiring", worker.id))

    def worker_messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        self.news.append(("messages", worker.id, list(messages)))

    def worker_died(self, worker: Worker, death: Death) -> None:
        self.news.append(("died", worker.id, death.how))

    def heard(self) -> list[Any]:
        news, self.news = self.news, []
        return news

    def live(self, *names: str) -> None:
        """Load all processes that are there."""
        for process in list(self.processes):
            process.load(*names)


class Answer:
    """What a Deferred gave."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.values: list[Any] = []
        deferred.addBoth(self.values.append)

    @property
    def value(self) -> Any:
        (value,) = self.values
        return value

    def failure(self, kind: type[Exception]) -> str:
        assert isinstance(self.value, Failure)
        self.value.trap(kind)
        return self.value.getErrorMessage()


def started(cpu_workers: int = 1) -> FakePool:
    pool = FakePool(cpu_workers)
    answer = Answer(pool.start())
    pool.live("a")
    assert answer.value is None
    pool.heard()
    return pool


def states(pool: FakePool) -> dict[str, str]:
    return {row["id"]: row["state"] for row in pool.workers() if row["kind"] != "command"}


def test_the_engine_hears_of_tasks_first_and_then_of_all_workers() -> None:
    pool = FakePool(2)
    answer = Answer(pool.start())
    io, one, two = pool.processes
    assert [io.id, one.id, two.id] == ["io-1", "cpu-1", "cpu-2"]
    io.load("a")
    one.load("a")
    assert answer.values == []
    assert pool.news == []
    two.load("a")
    assert answer.value is None
    assert pool.news == [
        ("tasks", ["a"]), ("ready", "io-1"), ("ready", "cpu-1"), ("ready", "cpu-2"), ("ready", "command@01234567"),
    ]  # fmt: skip
    assert io.did == ["ready"]


def test_a_module_that_does_not_load_ends_the_start_with_its_traceback() -> None:
    pool = FakePool(1)
    answer = Answer(pool.start())
    io, cpu = pool.processes
    cpu.owner.loaded(Manifest([], {}, {"m": "Traceback: SyntaxError in tasks.py"}))
    assert "SyntaxError in tasks.py" in answer.failure(ModuleLoadError)
    assert (io.did, cpu.did) == (["destroy"], ["destroy"])
    io.load("a")  # it was on the way
    assert pool.news == []
    io.die(KILLED)
    cpu.die(KILLED)
    assert pool.workers() == pool.workers()[-1:]
    assert pool.news == [], "the engine never knew them"


def test_a_worker_that_dies_at_its_start_gives_its_last_words() -> None:
    pool = FakePool(1)
    answer = Answer(pool.start())
    pool.processes[1].die()
    text = answer.failure(ModuleLoadError)
    assert "cpu worker exited with status 3" in text
    assert "last words" in text


def test_no_process_to_be_had_ends_the_start(flush_failures: FlushFailures) -> None:
    pool = FakePool(1)
    pool.no_processes = True
    assert "could not be started" in Answer(pool.start()).failure(ModuleLoadError)
    assert states(pool) == {}
    assert flush_failures(BlockingIOError)


def test_workers_that_disagree_end_the_start() -> None:
    pool = FakePool(1)
    answer = Answer(pool.start())
    pool.processes[0].load("a", "b")
    pool.processes[1].load("a", "c")
    assert "b, c" not in pool.news
    text = answer.failure(ModuleLoadError)
    assert "do not agree" in text
    assert "b" in text.split(":")[1]


def test_a_dead_worker_is_reported_once_and_replaced_at_once() -> None:
    pool = started()
    pool.processes[1].die()
    assert pool.heard() == [("died", "cpu-1", "exit")]
    assert states(pool)["cpu-1"] == "waiting"
    pool.clock.advance(0)
    (cpu,) = [process for process in pool.processes if process.kind == "cpu"]
    assert cpu.id == "cpu-2"
    cpu.load("a")
    assert pool.heard() == [("ready", "cpu-2")]
    assert [row["restarts"] for row in pool.workers()] == [0, 1, 0]


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly() -> None:
    pool = started()
    pool.processes[1].die()
    pool.clock.advance(0)
    pool.processes[1].die()
    pool.clock.advance(RESTART_BASE_S * 0.99)
    assert len(pool.processes) == 1
    pool.clock.advance(RESTART_BASE_S * 0.02)
    assert len(pool.processes) == 2
    assert pool.heard() == [("died", "cpu-1", "exit")], (
        "one that was never ready is not the engine's business"
    )


def test_a_worker_killed_with_its_attempt_is_replaced_at_once_every_time() -> None:
    pool = started()
    for _ in range(20):
        pool.processes[1].die(Death("killed", Exit(signal=9, name="SIGKILL"), (5, 1)))
        pool.clock.advance(0)
        pool.processes[1].load("a")
    assert len(pool.processes) == 2


def test_messages_pass_only_from_workers_the_engine_knows() -> None:
    pool = FakePool(1)
    pool.start()
    cpu = pool.processes[1]
    cpu.owner.messages([Pong(1)])
    assert pool.news == []
    pool.live("a")
    pool.heard()
    cpu.owner.messages([Pong(1)])
    assert pool.heard() == [("messages", "cpu-1", [Pong(1)])]


def test_a_reload_changes_over_when_all_new_workers_are_there() -> None:
    pool = started()
    old = list(pool.processes)
    answer, other = Answer(pool.reload()), Answer(pool.reload())
    new = pool.processes[2:]
    assert [process.id for process in new] == ["io-2", "cpu-2"], "the second call joins the first"
    new[0].load("a", "b")
    assert pool.heard() == []
    new[1].load("a", "b")
    assert pool.heard() == [
        ("tasks", ["a", "b"]), ("ready", "io-2"), ("ready", "cpu-2"), ("retiring", "io-1"), ("retiring", "cpu-1"),
    ]  # fmt: skip
    assert answer.value == other.value == ReloadReport(2, ["b"], [], [])
    old[1].quit()
    assert old[1].did == ["ready", "dismiss"]
    old[1].die(QUIT)
    assert pool.heard() == [("died", "cpu-1", "quit")]
    assert states(pool) == {"io-1": "retiring", "io-2": "ready", "cpu-2": "ready"}
    pool.clock.advance(60)
    assert len(pool.processes) == 3, "a retired worker is not replaced"


def test_a_reload_that_fails_changes_nothing() -> None:
    pool = started()
    answer = Answer(pool.reload())
    bad = pool.processes[3]
    bad.owner.loaded(Manifest([], {}, {"m": "Traceback: NameError"}))
    assert "NameError" in answer.failure(ModuleLoadError)
    for process in pool.processes[2:]:
        assert process.did == ["destroy"]
        process.die(KILLED)
    assert pool.heard() == []
    assert states(pool) == {"io-1": "ready", "cpu-1": "ready"}
    again = Answer(pool.reload())
    for process in pool.processes[2:]:
        process.load("a")
    assert again.value == ReloadReport(1, [], [], [])


def test_a_worker_that_finds_other_tasks_on_disk_does_not_serve_but_reloads() -> None:
    pool = started()
    pool.processes[1].die()
    pool.clock.advance(0)
    stale = pool.processes[1]
    pool.heard()
    stale.load("a", "new")
    assert stale.did == ["destroy"]
    fresh = pool.processes[2:]
    assert [process.id for process in fresh] == ["io-2", "cpu-3"]
    stale.die(KILLED)
    for process in fresh:
        process.load("a", "new")
    assert ("ready", "cpu-3") in pool.heard()
    pool.clock.advance(120)
    assert [process.id for process in pool.processes] == ["io-1", "io-2", "cpu-3"]


def test_a_replacement_serves_before_the_old_one_retires() -> None:
    pool = started()
    answer, twice = Answer(pool.replace("io-1")), Answer(pool.replace("io-1"))
    assert twice.value is None
    assert answer.values == []
    (fresh,) = pool.processes[2:]
    fresh.load("a")
    assert answer.value is None
    assert pool.heard() == [("ready", "io-2"), ("retiring", "io-1")]
    assert Answer(pool.replace("nobody")).value is None


def test_a_replacement_that_does_not_load_leaves_the_old_one_in_place() -> None:
    pool = started()
    answer = Answer(pool.replace("io-1"))
    pool.processes[2].owner.broken("hangs")
    assert answer.value is None
    assert pool.heard() == []
    assert states(pool)["io-1"] == "ready"


def test_stop_waits_for_every_process_in_whatever_state() -> None:
    pool = started(cpu_workers=2)
    io, one, two = pool.processes
    two.die()  # waits for its restart
    reload = Answer(pool.reload())
    loading = pool.processes[2:]
    pool.heard()
    answer = Answer(pool.stop())
    assert (io.did[-1], one.did[-1]) == ("dismiss", "dismiss")
    assert all(process.did == ["destroy"] for process in loading)
    for process in list(pool.processes):
        assert answer.values == []
        process.die(QUIT)
    assert answer.value is None
    reload.failure(JobsvcError)
    assert pool.heard() == [
        ("died", "command@01234567", "quit"),
        ("died", "io-1", "quit"),
        ("died", "cpu-1", "quit"),
    ]
    pool.clock.advance(3600)
    assert pool.processes == []


def test_stop_during_the_start() -> None:
    pool = FakePool(1)
    start = Answer(pool.start())
    stop = Answer(pool.stop())
    assert isinstance(start.value, Failure)
    for process in list(pool.processes):
        process.die(KILLED)
    assert stop.value is None
    assert pool.news == []


@pytest.mark.parametrize("state", ["loading", "ready", "retiring", "waiting", "starting"])
def test_quit_ends_a_slot_in_every_state(state: str) -> None:
    pool = FakePool(1)
    start = pool.start()
    start.addErrback(lambda failure: failure.trap(CancelledError))
    slot = pool._slots[1]
    if state != "loading":
        pool.live("a")
    if state == "retiring":
        slot.retire()
    if state in ("waiting", "starting"):
        pool.processes[1].die()
    if state == "starting":
        pool.clock.advance(0)
    slot.quit()
    slot.quit()
    slot.retire()
    for process in [process for process in pool.processes if process.kind == "cpu"]:
        process.die(QUIT)
    assert slot not in pool._slots
    pool.clock.advance(3600)
    assert [process.kind for process in pool.processes] == ["io"]
    start.cancel()
