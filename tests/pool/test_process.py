"""Worker processes, really started: nothing they say is lost, their end is told once and called by its name."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import msgspec
import pytest
import pytest_twisted

from jobsvc.model.errors import Exit
from jobsvc.model.frames import Credit, Log, Pong, Result
from jobsvc.model.limits import STREAM_WINDOW_BYTES
from jobsvc.ports import Death
from tests.pool.harness import FakeWorker, alive, gone, pause, start

BURST = 2_000


def blamed(death: Death) -> Death:
    """The death without the moment at which the blamed attempt began, which must be there."""
    assert death.began_us
    return msgspec.structs.replace(death, began_us=None)


@pytest_twisted.ensureDeferred
async def test_a_job_goes_there_and_its_result_comes_back() -> None:
    worker = await FakeWorker().started()
    body = b'"' + b"x" * 3_000_000 + b'"'
    worker.process.send([start("echo", 1), start("echo", 2, body)])
    await worker.record.until(lambda: len(worker.record.of(Result)) == 2)
    assert [(result.no, result.body) for result in worker.record.of(Result)] == [(1, b"{}"), (2, body)]
    assert worker.process.pid is not None
    worker.process.dismiss()
    death = await worker.death()
    assert (death.how, death.exit) == ("quit", Exit(code=0))
    assert worker.process.pid is None


@pytest.mark.parametrize("_time", range(20))
@pytest_twisted.ensureDeferred
async def test_all_output_is_delivered_before_the_death(_time: int) -> None:
    """20 times of 20: the exit status alone comes earlier than the last output."""
    worker = await FakeWorker().started()
    worker.process.send([start("burst_and_exit")])
    assert blamed(await worker.death()) == Death("exit", Exit(code=7), (1, 1))
    assert worker.record.items() == list(range(BURST))
    assert worker.record.logs("stdout") == ["printed"] * BURST + ["no newline"]
    assert worker.record.logs("stderr") == ["complained"]
    assert worker.record.after_death == 0


@pytest_twisted.ensureDeferred
async def test_native_output_comes_before_the_result_of_its_attempt() -> None:
    worker = await FakeWorker().started()
    worker.process.send([start("print")])
    await worker.record.until(lambda: worker.record.of(Result))
    assert worker.record.logs("stdout") == ["native 1", "half 1"]
    assert isinstance(worker.record.messages[-1], Result)
    await worker.end()


@pytest_twisted.ensureDeferred
async def test_native_output_of_attempts_in_a_row_is_told_apart() -> None:
    """However late the daemon looks: a thousand ends may have come before it reads the first line."""
    worker = await FakeWorker().started()
    worker.process.send([start("print", no) for no in range(1, 1001)])
    await worker.record.until(lambda: len(worker.record.of(Result)) == 1000)
    said: dict[int, list[str]] = {}
    for log in worker.record.of(Log):
        said.setdefault(log.no, []).extend(
            msgspec.json.decode(text)["message"] for text in log.body.split(b"\n")
        )
    assert said == {no: [f"native {no}", f"half {no}"] for no in range(1, 1001)}
    await worker.end()


@pytest_twisted.ensureDeferred
async def test_a_kill_ends_the_whole_tree() -> None:
    worker = await FakeWorker().started()
    worker.process.send([start("have_children")])
    children = await worker.record.until(worker.record.items)
    assert len(children) == 3
    assert all(alive(pid) for pid in children)
    assert worker.process.running() == (1, 1, 5)
    assert not worker.process.kill(2, 1), "another attempt: it would hit the wrong one"
    assert worker.process.kill(1, 1)
    assert blamed(await worker.death()) == Death("killed", Exit(signal=9, name="SIGKILL", oom=None), (1, 1))
    await gone(*children)


@pytest_twisted.ensureDeferred
async def test_a_sigkill_from_elsewhere_is_a_loss() -> None:
    worker = await FakeWorker().started()
    worker.process.send([start("be_killed")])
    assert blamed(await worker.death()) == Death("lost", Exit(signal=9, name="SIGKILL", oom=None), (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_dead_workers_children_do_not_outlive_it() -> None:
    worker = await FakeWorker().started()
    worker.process.send([start("have_children"), start("be_killed", 2)])
    await worker.death()
    child, grandchild, _ = worker.record.items()
    await gone(child, grandchild)
    os.kill(worker.record.items()[2], 9)  # it has left the session: the guard's work


@pytest.mark.parametrize("deed", ["talk_nonsense", "hang_up"])
@pytest_twisted.ensureDeferred
async def test_a_worker_whose_channel_is_lost_is_killed(deed: str) -> None:
    worker = await FakeWorker().started()
    worker.process.send([start(deed)])
    death = await worker.death()
    assert (death.how, death.running) == ("lost", (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_worker_of_another_version_is_no_use() -> None:
    worker = await FakeWorker(module="other_version").started()
    assert worker.record.why is not None
    assert "another version" in worker.record.why
    await worker.end()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_will_not_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.pool.process.QUIT_S", 0.1)
    worker = await FakeWorker(module="stubborn").started()
    worker.process.dismiss()
    assert await worker.death() == Death("quit", Exit(signal=9, name="SIGKILL", oom=None))


@pytest_twisted.ensureDeferred
async def test_a_worker_without_manifest_is_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.pool.process.START_S", 0.3)
    worker = await FakeWorker(module="silent").started()
    assert worker.record.why is not None
    assert "manifest" in worker.record.why
    await worker.end()


@pytest_twisted.ensureDeferred
async def test_an_io_worker_that_stalls_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.pool.pulse.PING_S", 0.01)
    monkeypatch.setattr("jobsvc.pool.pulse.STALL_S", 0.2)
    worker = await FakeWorker("io").started()
    worker.process.ready()
    await pause(0.4)
    assert worker.record.deaths == [], "it answers"
    worker.process.send([start("hang")])
    death = await worker.death()
    assert (death.how, death.running) == ("stalled", (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_cpu_worker_that_is_stopped_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only looked at: it answers nothing while it computes, and is left alone unless a signal has stopped it."""
    monkeypatch.setattr("jobsvc.pool.pulse.PING_S", 0.01)
    monkeypatch.setattr("jobsvc.pool.pulse.STALL_S", 0.2)
    worker = await FakeWorker().started()
    worker.process.ready()
    worker.process.send([start("hang")])
    await pause(0.4)
    assert worker.record.deaths == [], "it runs, however long"
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGSTOP)
    death = await worker.death()
    assert (death.how, death.running) == ("stalled", (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_cpu_worker_that_runs_nothing_and_does_not_answer_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task has put something else in the place of its channel: what is sent there is lost, and so is its result."""
    monkeypatch.setattr("jobsvc.pool.pulse.PING_S", 0.01)
    monkeypatch.setattr("jobsvc.pool.pulse.STALL_S", 0.2)
    worker = await FakeWorker().started()
    worker.process.ready()
    worker.process.send([start("echo")])
    await worker.record.until(lambda: worker.record.of(Result))
    await pause(0.4)
    assert worker.record.deaths == [], "it waits for work, and answers"
    assert not worker.record.of(Pong), "that is between it and the pool"
    worker.process.send([start("end_unheard", 2)])
    death = await worker.death()
    assert (death.how, death.running) == ("lost", (2, 1))


@pytest_twisted.ensureDeferred
async def test_an_attempt_whose_result_was_lost_has_begun() -> None:
    """Else it would begin again for ever, uncounted: here it is the channel that it has closed."""
    worker = await FakeWorker().started()
    worker.process.send([start("end_and_exit")])
    assert blamed(await worker.death()) == Death("exit", Exit(code=1), (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_worker_that_prints_faster_than_it_is_stored_waits() -> None:
    worker = await FakeWorker().started()
    worker.process.send([start("flood")])
    (written,) = await worker.record.until(worker.record.items)
    read = sum(len(line) + 1 for line in worker.record.logs("stdout"))
    assert read < STREAM_WINDOW_BYTES + 70_000, "the window, and the read that overflowed it"
    assert written < read + 80_000, "what is not read lies in the pipe"
    owed = sum(
        len(log.body) for log in worker.record.messages if hasattr(log, "body") and log.body[:2] == b'{"'
    )
    worker.process.send([Credit(1, 1, "log", owed), Credit(1, 1, "out", 3)])
    await worker.record.until(lambda: sum(len(line) + 1 for line in worker.record.logs("stdout")) == written)
    await worker.record.until(lambda: worker.record.items("credit"))
    assert worker.record.items("credit") == [3], "the worker never sent what the pipe was owed for"
    await worker.end()


@pytest.mark.parametrize("missing", ["socketpair", "memfd_create", "ftruncate"])
def test_a_start_that_fails_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """It is tried again and again, when descriptors are short: each try must give back what it has taken."""

    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = set(Path("/proc/self/fd").iterdir())
    worker = FakeWorker()
    with monkeypatch.context() as patch:
        patch.setattr(socket if missing == "socketpair" else os, missing, refused)
        with pytest.raises(OSError, match="Too many open files"):
            worker.process.start()
    assert set(Path("/proc/self/fd").iterdir()) == before
