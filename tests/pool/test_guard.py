"""The guard, really started: it ends what carries a mark, nothing else, and is there again when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from jobsvc.pool.guard import GUARD, Guard, GuardSilent
from tests.pool.harness import BOOT, WAIT_S, FakeWorker, alive, gone, pause, reactor, spawner, start

EARLIER = "fedcba9876543210"


def sleeper(boot: str = BOOT, node: str = "n-1", worker: str = "w-1", script: str = "exec sleep 600") -> int:
    """A process with these marks in a session of its own, that is nobody's child; its pid."""
    done = subprocess.run(
        ["setsid", "-f", "sh", "-c", f"echo $$; exec >/dev/null; {script}"],
        env={**os.environ, "JOBSVC_BOOT": boot, "JOBSVC_NODE": node, "JOBSVC_WORKER": worker},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


def below(pid: int) -> list[int]:
    """Its children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest_twisted.async_yield_fixture
async def guard() -> AsyncIterator[Guard]:
    made = Guard(reactor(), reactor(), spawner(), time.monotonic, BOOT, lambda low, high: low)
    yield made
    await made.stop().addTimeout(WAIT_S, reactor())


@pytest_twisted.ensureDeferred
async def test_sweeps_what_carries_the_mark(guard: Guard) -> None:
    """All that one worker left is gone when the answer is there; that of others and of other daemons stays."""
    mine = [sleeper(), sleeper(script="sleep 600 & trap '' TERM; while :; do sleep 600; done")]
    others = [sleeper(worker="w-2"), sleeper(boot=EARLIER)]
    await guard.sweep("w-1").addTimeout(WAIT_S, reactor())
    assert not any(map(alive, mine))
    assert all(map(alive, others))
    for pid in others:
        os.kill(pid, signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_sweeps_the_descendants_too(guard: Guard) -> None:
    """A child that has cleared its environment goes with its marked parent."""
    parent = sleeper(script="env -i sleep 600 & wait")
    for _ in range(int(WAIT_S / 0.02)):
        if children := below(parent):
            break
        await pause(0.02)
    await guard.sweep("w-1").addTimeout(WAIT_S, reactor())
    assert not any(map(alive, [parent, *children]))


@pytest_twisted.ensureDeferred
async def test_clears_what_earlier_starts_left(guard: Guard) -> None:
    """What another boot on the same data directory left is ended; this boot's and other directories' stays."""
    earlier = sleeper(boot=EARLIER)
    others = [sleeper(), sleeper(boot=EARLIER, node="n-2")]
    await guard.clear("n-1").addTimeout(WAIT_S, reactor())
    assert not alive(earlier)
    assert all(map(alive, others))
    for pid in others:
        os.kill(pid, signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_a_guard_that_dies_or_hangs_is_replaced(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one does what the old one was asked; who waited on one that hangs is told that nobody knows."""
    monkeypatch.setattr("jobsvc.pool.guard.ANSWER_S", 0.5)
    await guard.clear("n-1").addTimeout(WAIT_S, reactor())
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    left = sleeper()
    asked = guard.clear("n-1")
    await guard.sweep("w-1").addTimeout(WAIT_S, reactor())  # fires though nothing is known
    with pytest.raises(GuardSilent, match="earlier start"):
        await asked.addTimeout(WAIT_S, reactor())
    await gone(first, left)
    assert guard.pid not in {None, first}


@pytest_twisted.ensureDeferred
async def test_leaves_nothing_of_its_boot_at_its_end() -> None:
    """A clean stop: the last sweep takes what still carries the mark of this start."""
    guard = Guard(reactor(), reactor(), spawner(), time.monotonic, BOOT, lambda low, high: low)
    await guard.clear("n-1").addTimeout(WAIT_S, reactor())
    pid = guard.pid
    left = sleeper(worker="w-9")
    await guard.stop().addTimeout(WAIT_S, reactor())
    assert pid is not None
    assert not alive(left)
    assert not alive(pid)


@pytest.mark.parametrize("while_stopping", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_guard_that_dies_is_replaced_for_the_last_sweep(
    monkeypatch: pytest.MonkeyPatch, *, while_stopping: bool
) -> None:
    """Killed just before the stop, or by it: what has left its tree is gone all the same at the end of a stop."""
    made = Guard(reactor(), reactor(), spawner(), time.monotonic, BOOT, lambda low, high: low)
    await made.sweep("w-0").addTimeout(WAIT_S, reactor())
    left = sleeper()
    assert made.pid is not None
    if while_stopping:
        os.kill(made.pid, signal.SIGSTOP)  # so that it has done nothing yet
    else:
        monkeypatch.setattr(made, "_wait", lambda: None)  # the next one is not due yet
        os.kill(made.pid, signal.SIGKILL)
        for _ in range(int(WAIT_S / 0.02)):
            if made.pid is None:
                break
            await pause(0.02)
        assert made.pid is None
    ended = made.stop()
    if while_stopping:
        os.kill(made.pid, signal.SIGKILL)
    await ended.addTimeout(WAIT_S, reactor())
    assert not alive(left)


def test_end_of_the_pipe_is_the_end_of_all(tmp_path: Path) -> None:
    """The daemon is gone: all of this boot is killed, what comes up in the next moment too, then the guard exits."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"sweep 1 nobody\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"1 0\n"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        process.send_signal(number)
    left = [sleeper(worker=f"w-{n}") for n in range(3)]
    process.stdin.close()
    for _ in range(int(WAIT_S / 0.02)):
        if not any(map(alive, left)):
            break
        assert process.poll() is None, "it is still at it"
        moment(0.02)
    late = sleeper()
    assert process.wait(WAIT_S) == 0
    assert not any(map(alive, [*left, late]))
    process.stdout.close()


def moment(seconds: float) -> None:
    """A short pause between two looks."""
    subprocess.run(["sleep", str(seconds)], check=True)


@pytest_twisted.ensureDeferred
async def test_the_death_of_a_worker_is_told_when_nothing_of_it_is_left(guard: Guard) -> None:
    """Its children in other sessions are gone by then."""
    worker = await FakeWorker(sweep=guard.sweep).started()
    worker.process.send([start("have_children"), start("be_killed", 2)])
    await worker.death()
    assert not any(map(alive, worker.record.items()))
    assert len(worker.record.items()) == 3
