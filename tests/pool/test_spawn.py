"""Starts of processes that take their time, fail, or are over before anybody has heard of them."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_twisted

from jobsvc.model.errors import Exit
from jobsvc.model.frames import Begin, Cancel, Items, Result, Returned
from jobsvc.pool import posix, tree
from jobsvc.pool.spawn import OwnProcess
from jobsvc.ports import Death
from tests.conftest import FlushFailures
from tests.pool.harness import WAIT_S, FakeWorker, Record, alive, gone, pause, spawner, start
from tests.pool.test_command import Engine

Spawn = Callable[[Sequence[bytes], Sequence[bytes], Sequence[int]], int]


def descriptors() -> set[Path]:
    """Those that are open here."""
    return set(Path("/proc/self/fd").iterdir())


def is_there(pid: int) -> bool:
    """Zombies too."""
    return Path(f"/proc/{pid}").exists()


def take_end(pid: int) -> None:
    """Reap it, as nobody but the pool should."""
    os.waitid(os.P_PID, pid, os.WEXITED)


class SlowStart:
    """In the place of `posix.spawn`: a start that takes until `go` is called."""

    def __init__(self, real: Spawn) -> None:
        self._real = real
        self._go = threading.Event()
        self.pids: list[int] = []
        self.go = self._go.set

    def __call__(
        self, argv: Sequence[bytes], environment: Sequence[bytes], descriptors: Sequence[int]
    ) -> int:
        assert self._go.wait(WAIT_S)
        self.pids.append(self._real(argv, environment, descriptors))
        return self.pids[-1]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowStart]:
    made = SlowStart(posix.spawn)
    monkeypatch.setattr(posix, "spawn", made)
    yield made
    made.go()


@pytest_twisted.ensureDeferred
async def test_the_reactor_turns_while_a_process_is_started(slow: SlowStart) -> None:
    """However long that takes; what waits behind it has not begun and can be given back."""
    engine = Engine()
    engine.define("true", "true")
    engine.worker.send([start("true", no, executor="command") for no in (1, 2)])
    for _ in range(3):
        await pause(0)
    engine.worker.send([Cancel(2, 1, "cancel_asked")])
    assert engine.messages == [Returned([(2, 1)])]
    slow.go()
    assert (await engine.result()).error is None
    assert len(engine.of(Begin)) == 1


@pytest.mark.parametrize("how", ["asked", "killed", "stopped"])
@pytest_twisted.ensureDeferred
async def test_a_program_that_is_ended_while_it_is_started(slow: SlowStart, how: str) -> None:
    """By a cancel, a kill, or the stop of the daemon: it ends as soon as it is there."""
    engine = Engine()
    engine.define("sleep", "sleep", "600")
    engine.worker.send([start("sleep", executor="command")])
    await pause(0)
    if how == "asked":
        engine.worker.send([Cancel(1, 1, "cancel_asked")])
    elif how == "killed":
        assert engine.worker.kill(1, 1)
    else:
        stopped = engine.worker.stop()
        assert not stopped.called
    slow.go()
    result = await engine.result()
    assert result.error is not None
    ended_by = "SIGTERM" if how == "asked" else "SIGKILL"
    assert (result.error.kind, result.error.exit and result.error.exit.name) == ("cancelled", ended_by)
    assert not any(map(alive, slow.pids))


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_ended_while_it_is_started(slow: SlowStart) -> None:
    """A reload or a stop that does not want it any more."""
    worker = FakeWorker()
    worker.process.start()
    assert worker.process.pid is None
    worker.process.destroy("quit")
    slow.go()
    death = await worker.death()
    assert (death.how, death.exit) == ("quit", Exit(signal=9, name="SIGKILL", oom=None))
    assert not any(map(alive, slow.pids))


@pytest_twisted.ensureDeferred
async def test_what_is_over_before_it_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has printed comes after its beginning, and nothing is lost; no zombie stays."""
    real = posix.spawn
    pids: list[int] = []

    def till_its_end(argv: Sequence[bytes], environment: Sequence[bytes], descriptors: Sequence[int]) -> int:
        pids.append(real(argv, environment, descriptors))
        os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
        return pids[-1]

    monkeypatch.setattr(posix, "spawn", till_its_end)
    engine = Engine()
    engine.define("hello", "echo", "hello")
    assert (await engine.run("hello")).error is None
    assert [type(message) for message in engine.messages] == [Begin, Items, Result]
    assert engine.items() == ["hello"]
    assert not is_there(pids[0])


@pytest.mark.parametrize("asked", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_started(monkeypatch: pytest.MonkeyPatch, *, asked: bool) -> None:
    """The job says so, nothing has begun, and every descriptor is given back. Later starts go on."""
    gate = threading.Event()

    def refused(*_: object) -> int:
        assert gate.wait(WAIT_S)
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    engine = Engine()
    engine.define("true", "true")
    assert (await engine.run("true")).error is None
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(posix, "spawn", refused)
        engine.worker.send([start("true", 2, executor="command")])
        await pause(0)
        if asked:
            engine.worker.send([Cancel(2, 1, "cancel_asked")])
        gate.set()
        error = (await engine.result(2)).error
    assert error is not None
    assert error.kind == ("cancelled" if asked else "crashed")
    assert "true could not be started: [Errno 7] Argument list too long" in error.message
    assert descriptors() == before
    assert not [begin for begin in engine.of(Begin) if begin.no == 2]
    engine.worker.send([start("true", 3, executor="command")])
    assert (await engine.result(3)).error is None


@pytest_twisted.ensureDeferred
async def test_no_process_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as a death, once, and leaves no descriptor."""

    def refused(*_: object) -> int:
        raise MemoryError

    before = descriptors()
    monkeypatch.setattr(posix, "spawn", refused)
    worker = FakeWorker()
    worker.process.start()
    assert await worker.death() == Death("exit", None)
    assert descriptors() == before


class Witness(Record):
    """Who has asked for a start, and hears what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = 0
        self.statuses: list[int] = []

    def started(self, process: OwnProcess) -> None:
        self.process, self.pid = process, process.pid
        self.happened()

    def failed(self, error: OSError) -> None:
        raise AssertionError(error)

    def exited(self, status: int) -> None:
        self.statuses.append(status)
        self.happened()


@pytest_twisted.ensureDeferred
async def test_descriptors_change_places() -> None:
    """The child has them as 0, 1, 2, whichever numbers they have here, those among them."""
    (question, asks), (hears, answer) = os.pipe(), os.pipe()
    witness = Witness()
    # Our 0 and 1 become 2 and 3, so the numbers they leave are taken by others.
    spawner().start(["/bin/cat"], {}, [question, answer, 0, 1], witness)
    os.close(question)
    os.close(answer)
    os.write(asks, b"through both")
    os.close(asks)
    await witness.until(lambda: witness.statuses)
    assert (witness.statuses, os.read(hears, 100)) == ([0], b"through both")
    os.close(hears)


@pytest_twisted.ensureDeferred
async def test_an_end_that_another_has_taken_counts_as_a_kill(flush_failures: FlushFailures) -> None:
    """How it ended is lost, but not that it did."""
    witness = Witness()
    spawner().start(["/bin/sleep", "600"], {}, [], witness)
    await witness.until(lambda: witness.pid)
    os.kill(witness.pid, signal.SIGTERM)
    take_end(witness.pid)
    await witness.until(lambda: witness.statuses)
    assert witness.statuses == [signal.SIGKILL]
    assert len(flush_failures(ChildProcessError)) == 1


@pytest_twisted.ensureDeferred
async def test_a_process_is_not_reaped_while_it_is_held() -> None:
    """What a thread does to it cannot hit another one that has been given its number."""
    witness = Witness()
    spawner().start(["/bin/sleep", "600"], {}, [], witness)
    await witness.until(lambda: witness.pid)
    held, go = threading.Event(), threading.Event()

    def deed(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        held.set()
        assert go.wait(WAIT_S)

    witness.process.hold(deed)
    while not held.is_set():
        await pause(0)
    for _ in range(3):
        witness.process.reapProcess()
        await pause(0)
    assert (witness.statuses, is_there(witness.pid)) == ([], True)
    go.set()
    await witness.until(lambda: witness.statuses)
    assert (witness.statuses, is_there(witness.pid)) == ([signal.SIGKILL], False)


@pytest_twisted.ensureDeferred
async def test_the_reactor_turns_while_a_tree_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes there are to look at. The one that was asked for does nothing more meanwhile."""
    go = threading.Event()
    walk = tree.tree_of

    def slow_walk(root: int) -> list[tree.Process]:
        assert go.wait(WAIT_S)
        return walk(root)

    monkeypatch.setattr(tree, "tree_of", slow_walk)
    engine = Engine()
    engine.define("sleep", "sh", "-c", "sleep 600 & echo $$; echo $!; wait")
    engine.worker.send([start("sleep", executor="command")])
    await engine.until(lambda: len(engine.items()) == 2)
    root, child = map(int, engine.items())
    assert engine.worker.kill(1, 1)
    assert engine.worker.kill(1, 1), "asked twice"
    while not tree.stopped(root):
        await pause(0)
    assert not engine.of(Result)
    go.set()
    result = await engine.result()
    assert result.error is not None
    assert result.error.kind == "cancelled"
    await gone(root, child)


def test_a_zero_byte_is_refused() -> None:
    """C would cut the word there and run something else."""
    with pytest.raises(ValueError, match="null byte"):
        posix.words_of(["rm", "-r", "a\0b"])
    with pytest.raises(ValueError, match="null byte"):
        posix.environment_of({"A": "b\0"})


def test_there_is_no_such_program() -> None:
    """The caller's own descriptors stay as they are."""
    with pytest.raises(FileNotFoundError):
        posix.spawn([b"/no/such/program"], [], [])
