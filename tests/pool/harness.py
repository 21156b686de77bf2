"""Real processes under the real reactor: a launcher, an owner that records, waits that are bounded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import msgspec
from twisted.internet.defer import Deferred, succeed

from jobsvc.model.frames import Items, Log, Manifest, Message, Start
from jobsvc.pool.descriptors import IPoolReactor
from jobsvc.pool.launcher import PACKAGE_DIR, Launcher, Sweep, child_environment
from jobsvc.pool.plan import HostKind, Plan
from jobsvc.pool.process import WorkerProcess
from jobsvc.pool.spawn import Spawner
from jobsvc.ports import Death
from jobsvc.runtime.waiting import Waiters

WAIT_S = 30.0
"""No process of these tests takes so long for anything: the test fails."""
BOOT = uuid4().hex
"""Of this run: what it starts is killed by this mark, and another run of the tests may be going on beside it."""
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")

T = TypeVar("T")


def reactor() -> IPoolReactor:
    from twisted.internet import reactor as installed

    return cast("IPoolReactor", installed)


def nothing_left(mark: str) -> Deferred[None]:
    """In the place of the guard."""
    return succeed(None)


@cache
def spawner() -> Spawner:
    """One for all tests: its thread lives as long as they."""
    return Spawner(reactor())


def launcher(sweep: Sweep = nothing_left, **more: Any) -> Launcher:
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE_DIR), "JOBSVC_TOKEN": "secret"}
    return Launcher(
        reactor(), reactor(), spawner(), Path.cwd(), child_environment(environ, BOOT), sweep, **more
    )


def start(task: str, no: int = 1, body: bytes = b"{}", executor: str = "process") -> Start:
    return Start(no, 1, bytes(16), task, executor, 1, None, False, 0, body)


class Record:
    """Things that happened, in order; `until` waits for what the test wants to see."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._happened: Waiters[None] = Waiters()

    def happened(self) -> None:
        self._happened.fire(None)

    async def until(self, what: Callable[[], T]) -> T:
        """The first true value of `what`."""
        while not (value := what()):
            await self._happened.wait().addTimeout(WAIT_S, reactor())
        return value

    def of(self, kind: type[T]) -> list[T]:
        return [message for message in self.messages if isinstance(message, kind)]

    def items(self, stream: str = "out") -> list[Any]:
        return [
            msgspec.json.decode(text)
            for message in self.of(Items)
            if message.stream == stream
            for text in message.body.split(b"\n")
        ]

    def logs(self, source: str) -> list[str]:
        events = [msgspec.json.decode(text) for log in self.of(Log) for text in log.body.split(b"\n")]
        return [event["message"] for event in events if event["source"] == source]


class RecordingOwner(Record):
    """The owner of one worker process."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest: Manifest | None = None
        self.why: str | None = None
        self.deaths: list[Death] = []
        self.after_death = 0

    def loaded(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.happened()

    def broken(self, why: str) -> None:
        self.why = why
        self.happened()

    def messages_of(self, messages: Sequence[Message]) -> None:
        self.after_death += bool(self.deaths)
        self.messages += messages
        self.happened()

    def asked_to_quit(self) -> None:
        self.happened()

    def ended(self, death: Death) -> None:
        self.deaths.append(death)
        self.happened()


class _Owner:
    """`Owner` in front of the record: there `messages` is the list of what came."""

    def __init__(self, record: RecordingOwner) -> None:
        self._record = record
        self.loaded = record.loaded
        self.broken = record.broken
        self.messages = record.messages_of
        self.asked_to_quit = record.asked_to_quit
        self.ended = record.ended


class FakePlan(Plan, frozen=True):
    """Starts the fake worker instead of a real one."""

    def argv(self) -> list[str]:
        real = super().argv()
        return [sys.executable, str(FAKE_WORKER), *real[3:]]


class FakeWorker:
    """A fake worker in a real process, with its record."""

    def __init__(
        self,
        kind: HostKind = "cpu",
        module: str = "m",
        stall: Callable[[], float] = time.monotonic,
        sweep: Sweep = nothing_left,
        **more: Any,
    ) -> None:
        self.record = RecordingOwner()
        plan = FakePlan(kind=kind, boot=BOOT, modules=(module,), path=(), slots={})
        self.process = WorkerProcess(
            worker_id=f"{kind}-1@{BOOT[:8]}",
            plan=plan,
            launcher=launcher(sweep, **more),
            started_us=0,
            monotonic=stall,
            owner=_Owner(self.record),
        )

    async def started(self) -> FakeWorker:
        self.process.start()
        await self.record.until(lambda: self.record.manifest or self.record.why)
        return self

    async def death(self) -> Death:
        await self.record.until(lambda: self.record.deaths)
        (death,) = self.record.deaths
        return death

    async def end(self) -> None:
        """Kill it if it lives."""
        self.process.destroy("quit")
        await self.death()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


async def gone(*pids: int) -> None:
    """Wait until none of them is there: a killed process takes a moment to end. Fails after `WAIT_S`."""
    for _ in range(int(WAIT_S / 0.02)):
        if not any(alive(pid) for pid in pids):
            return
        await pause(0.02)
    raise AssertionError(f"still there: {[pid for pid in pids if alive(pid)]}")


async def pause(seconds: float) -> None:
    """Let the reactor turn for so long: only where the test is that nothing happens."""
    waiting: Deferred[None] = Deferred()
    reactor().callLater(seconds, waiting.callback, None)
    await waiting
