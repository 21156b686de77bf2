"""A whole daemon in memory but for its workers: engine, store on `:memory:`, edge; the test plays the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from jobsvc.engine.engine import Engine, EngineConfig
from jobsvc.http.api import Api, build_site
from jobsvc.model.errors import JobError
from jobsvc.model.frames import Begin, Items, Log, Message, Result, Start
from jobsvc.model.task import CommandSpec, ExecutorName, Policy, Port, TaskSpec
from jobsvc.model.types import signature_node
from jobsvc.model.typetree import FieldNode, TypeNode, to_bytes
from jobsvc.ports import WorkerKind
from jobsvc.store.memory import InlineStore
from tests.http.wire import TOKEN, Reply, Wire

START_US = 1_795_000_000_000_000


def spec(name: str, executor: ExecutorName, fields: Mapping[str, TypeNode], **more: Any) -> TaskSpec:
    """A task as a worker would declare it; every argument is optional."""
    node = signature_node([FieldNode(field, node, required=False) for field, node in fields.items()])
    return TaskSpec(
        name=name,
        module="tasks",
        executor=executor,
        args_tree=to_bytes(node),
        args_schema=b'{"type":"object"}',
        result_schema=b"{}",
        ports=(Port("out", "out"),),
        **more,
    )


TASKS = {
    task.name: task
    for task in (
        spec("echo", "process", {"x": TypeNode("any")}, doc="Gives back x."),
        spec("add", "process", {"n": TypeNode("int")}),
        spec("retried", "process", {}, policy=Policy(max_attempts=3)),
        spec("blocking", "thread", {}),
        spec("lines", "command", {}, command=CommandSpec(("cat",))),
        spec("idle", "cluster", {}),  # type: ignore[arg-type]  # no worker offers it: such jobs stay queued
    )
}


class ScriptedWorker:
    """Takes attempts and does nothing until the test says so; with `auto` it echoes in the next turn."""

    kind: WorkerKind = "io"
    lacks: frozenset[str] = frozenset()

    def __init__(self, house: House, slots: Mapping[str, int]) -> None:
        self.id = "w1"
        self.slots = slots
        self.started: list[Start] = []
        self.others: list[Message] = []
        self.auto = False
        self._house = house

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if not isinstance(message, Start):
                self.others.append(message)
            elif self.auto:
                self._house.clock.callLater(0, self.succeed, message, message.body)
            else:
                self.started.append(message)

    def kill(self, no: int, epoch: int) -> bool:
        return False

    def quit(self) -> None:
        raise AssertionError("nobody retires this worker")

    def running(self) -> tuple[int, int, int] | None:
        return None

    # -- the script

    def say(self, *messages: Message) -> None:
        self._house.engine.worker_messages(self, messages)

    def begin(self, start: Start) -> None:
        self.say(Begin(start.no, start.epoch, self._house.now_us()))

    def succeed(self, start: Start, body: bytes = b"null") -> None:
        self.say(Result(start.no, start.epoch, self._house.now_us(), 0.01, None, 0, body))

    def fail(self, start: Start, message: str = "broken") -> None:
        error = JobError("task_error", "ValueError", message, traceback="Traceback: line 1")
        self.say(Result(start.no, start.epoch, self._house.now_us(), 0.01, error))

    def items(self, start: Start, *values: Any, stream: str = "out") -> None:
        body = b"\n".join(msgspec.json.encode(value) for value in values)
        self.say(Items(start.no, start.epoch, stream, len(values), 0, body))

    def log(self, start: Start, text: str) -> None:
        body = msgspec.json.encode({"level": "info", "message": text, "fields": {}, "source": "stdout"})
        self.say(Log(start.no, start.epoch, 1, 0, body))


class House:
    """See the module. Implements `Daemon` too."""

    boot = "boot-1"
    started_at = START_US

    def __init__(
        self, *, config: EngineConfig | None = None, hosts: Sequence[str] = (), store: Any = None
    ) -> None:
        """`store`: one that is open already; in memory when there is none."""
        self.clock = Clock()
        self.store: Any = InlineStore() if store is None else store
        self.checks: list[tuple[str, bool, str]] = [("store", True, "open")]
        self.flawed = False  # a task module is broken
        self.reloads = 0
        self.reload_error: Exception | None = None
        random = Random(7)
        self.engine = Engine(
            self.store,
            self.clock,
            self.now_us,
            random.getrandbits,
            lambda low, high: high,
            config or EngineConfig(),
            lambda worker: None,
        )
        if store is None:
            self.store.open()
        self.engine.tasks_changed(TASKS)
        self.worker = ScriptedWorker(self, {"process": 100, "thread": 2, "loop": 2, "command": 2})
        self.engine.worker_ready(self.worker)
        self.begun = Deferred.fromCoroutine(self.engine.start())
        self.site = build_site(self.engine, self, self.clock, execute, token=TOKEN, hosts=hosts)
        assert isinstance(self.site.application, Api)
        self.api = self.site.application

    def now_us(self) -> int:
        return START_US + int(self.clock.seconds() * 1_000_000)

    # -- Daemon

    def workers(self) -> Sequence[dict[str, Any]]:
        return [{"id": "w1", "kind": "io", "pid": 4711}]

    def reload(self) -> Deferred[Any]:
        def again() -> None:
            self.reloads += 1
            if self.reload_error is not None:
                raise self.reload_error

        return execute(again)

    def flaws(self) -> Sequence[tuple[str, str]]:
        return [("module other", "broken since then: ImportError")] if self.flawed else []

    def gauges(self) -> Mapping[tuple[str, ...], int]:
        return {("module_broken", "other"): int(self.flawed)}

    def ready(self) -> Sequence[tuple[str, bool, str]]:
        return self.checks

    # -- the client

    def wire(self) -> Wire:
        return Wire(self.site)

    def start(
        self,
        method: str,
        target: str,
        value: Any = None,
        headers: dict[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> Wire:
        """Send one request on a connection of its own."""
        wire = self.wire()
        body = raw if raw is not None else b"" if value is None else msgspec.json.encode(value)
        wire.request(method, target, body, headers)
        return wire

    def ask(
        self,
        method: str,
        target: str,
        value: Any = None,
        headers: dict[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> Reply:
        """One request whose reply comes at once."""
        return self.start(method, target, value, headers, raw=raw).reply()

    def submit(self, task: str = "echo", **fields: Any) -> dict[str, Any]:
        """A new job."""
        reply = self.ask("POST", "/v1/jobs", {"task": task, **fields})
        assert reply.status == 201, reply
        job: dict[str, Any] = reply.json()
        return job

    def done(self, task: str = "echo", result: bytes = b"null", **fields: Any) -> dict[str, Any]:
        """A new job that has succeeded."""
        job = self.submit(task, **fields)
        self.worker.succeed(self.worker.started.pop(), result)
        return job

    def after(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def close(self) -> None:
        """Nothing may be left on the clock that a closed daemon would leave."""
        for channel in list(self.site.channels):
            channel.connectionLost(_gone())
        self.site.stopFactory()


def _gone() -> Any:
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure

    return Failure(ConnectionDone())


Maker = Callable[..., House]
