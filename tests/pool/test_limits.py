"""Limits on what an attempt may use, with real workers and programs: what passes them fails in the job alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted

from jobsvc.model.errors import Exit, JobError
from jobsvc.model.frames import Result
from jobsvc.model.limits import MIB
from jobsvc.model.task import Limits
from jobsvc.pool import limits as pool_limits
from jobsvc.pool.limits import STACKS_BYTES
from jobsvc.pool.oom import Counters
from jobsvc.pool.process import WorkerProcess
from jobsvc.ports import Death
from tests.pool.harness import WAIT_S, FakeWorker, gone, pause, reactor, start
from tests.pool.test_pool import Engine

TASKS = Path(__file__).with_name("limit_tasks.py")
UNLIMITED = -1
XCPU, XFSZ, KILL = 24, 25, 9


class Limited(Engine):
    """An engine with the tasks of `limit_tasks`; each attempt has the next number."""

    def __init__(self, folder: Path, **more: Any) -> None:
        (folder / "limit_tasks.py").write_text(TASKS.read_text())
        super().__init__(folder, "limit_tasks", **more)
        self.folder = folder
        self.no = 0

    def begin(self, task: str, **args: Any) -> int:
        """Hand it over, to an idle worker; its number."""
        self.no += 1
        kind = self.tasks[task].executor
        worker = self.worker("command" if kind == "command" else "cpu")
        worker.send([start(task, self.no, msgspec.json.encode(args), kind)])
        return self.no

    async def value(self, task: str, **args: Any) -> Any:
        """The result of an attempt that must succeed."""
        error, body = await self.ended(task, **args)
        assert error is None
        return msgspec.json.decode(body)

    async def error(self, task: str, **args: Any) -> JobError:
        """The error of an attempt that must fail, and be told by what ran it."""
        error, _ = await self.ended(task, **args)
        assert error is not None
        return error

    async def ended(self, task: str, **args: Any) -> tuple[JobError | None, bytes]:
        no = self.begin(task, **args)
        (result,) = await self.until(lambda: [each for each in self.of(Result) if each.no == no])
        return result.error, result.body

    async def death(self, task: str, **args: Any) -> tuple[str, Exit | None, str | None]:
        """How the worker died in which it ran: how, exit, limit. Another one is ready."""
        worker = self.worker("cpu")
        no = self.begin(task, **args)
        death = await self.until(lambda: self.deaths.get(worker.id))
        assert death is not None
        assert death.running == (no, 1)
        await self.until(lambda: any(other.kind == "cpu" for other in self.workers.values()))
        return death.how, death.exit, death.limit


@pytest_twisted.async_yield_fixture
async def engine(tmp_path: Path) -> AsyncIterator[Limited]:
    made = Limited(tmp_path)
    await made.started()
    yield made
    await made.pool.stop().addTimeout(WAIT_S, reactor())


@pytest.fixture
def watched_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage is looked at often, so that no test waits for the next look."""
    monkeypatch.setattr(pool_limits, "WATCH_S", 0.02)


# -- rlimits ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_limits_of_a_task_hold_for_its_attempt_and_no_longer(engine: Limited) -> None:
    """The next attempt in the same worker has what the worker began with; hard limits are never touched."""
    before = await engine.value("free")
    first = await engine.value("limited")
    again = await engine.value("limited")
    after = await engine.value("free")
    assert after == before
    for found in (first, again):
        assert {name: hard for name, (_, hard) in found.items()} == {
            name: hard for name, (_, hard) in before.items()
        }
        assert 60 < found["CPU"][0] <= 65, "what the worker has used already, and 60 s"
        assert 64 < found["NOFILE"][0] < 100, "64 beside those of the worker"
        assert found["FSIZE"][0] == 10_000
        assert 256 * MIB + STACKS_BYTES - 32 * MIB < found["DATA"][0] < 256 * MIB + STACKS_BYTES + 32 * MIB


@pytest_twisted.ensureDeferred
async def test_an_allocation_over_the_limit_is_refused_in_the_job(engine: Limited) -> None:
    """MemoryError, which names the limit; worker and next job are well. What fits is given."""
    pid = (await engine.value("who"))[0]
    error = await engine.error("allocate", size=1024 * MIB)
    assert (error.kind, error.type) == ("task_error", "MemoryError")
    assert error.message == "its memory limit is 128 MiB (max_rss)"
    assert error.traceback is not None
    assert "held = [bytearray(size)]" in error.traceback
    assert await engine.value("allocate", size=64 * MIB) == 64 * MIB
    assert (await engine.value("who"))[0] == pid


@pytest_twisted.ensureDeferred
async def test_memory_that_is_used_up_to_the_last_byte_can_be_told_of(engine: Limited) -> None:
    """The job holds all it may when it is refused more: its error arrives, or the look comes first and it is killed."""
    worker = engine.worker("cpu")
    no = engine.begin("pile_up")
    await engine.until(lambda: [each for each in engine.of(Result) if each.no == no] or engine.deaths)
    if engine.deaths:
        assert engine.deaths[worker.id].how == "exit"
        assert "128 MiB (max_rss)" in str(engine.deaths[worker.id].limit)
    else:
        (error,) = [each.error for each in engine.of(Result) if each.no == no]
        assert error is not None
        assert (error.type, error.message) == ("MemoryError", "its memory limit is 128 MiB (max_rss)")
        assert isinstance(await engine.value("who"), list), "the worker still hears"


@pytest_twisted.ensureDeferred
async def test_stacks_of_threads_are_no_memory_that_is_used(engine: Limited) -> None:
    """As many threads as Python's own pool starts have their place beside a small limit."""
    count = min(32, len(os.sched_getaffinity(0)) + 4)
    assert await engine.value("have_threads", count=count) == count


@pytest_twisted.ensureDeferred
async def test_descriptors_over_the_limit_fail_in_the_job(engine: Limited) -> None:
    """F28: a job that opens 100,000 files gets as many as it may; its error, worker and next job are well."""
    pid = (await engine.value("who"))[0]
    error = await engine.error("open_many", count=100_000)
    assert (error.kind, error.type) == ("task_error", "OSError")
    assert error.message == "[Errno 24] Too many open files: '/dev/null'; it may open 64 files (open_files)"
    assert error.traceback is not None
    assert engine.logs("stdout") == ["open: 64"]
    assert await engine.value("open_many", count=64) == 64
    assert (await engine.value("who"))[0] == pid


@pytest_twisted.ensureDeferred
async def test_a_file_over_the_limit_fails_in_the_job(engine: Limited, tmp_path: Path) -> None:
    """F28: a job that would fill its scratch directory is stopped at its limit."""
    path = tmp_path / "big"
    pid = (await engine.value("who"))[0]
    error = await engine.error("write_file", path=str(path), size=1_000_000)
    assert (error.kind, error.type) == ("task_error", "OSError")
    assert error.message == "[Errno 27] File too large; its files may have 9.8 KiB (file_bytes)"
    assert path.stat().st_size == 10_000
    assert (await engine.value("who"))[0] == pid


@pytest_twisted.ensureDeferred
async def test_processor_time_over_the_limit_ends_the_attempt(engine: Limited) -> None:
    """By SIGXCPU, and says so. What the worker has used before does not count."""
    for _ in range(2):
        assert await engine.value("burn", seconds=0.8) == 0.8
    how, exit_, limit = await engine.death("burn", seconds=60)
    assert (how, exit_) == ("exit", Exit(signal=XCPU, name="SIGXCPU", oom=False))
    assert limit == "cpu limit of 1 s (cpu_s): ended by SIGXCPU"


# -- the look at the tree -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("watched_closely")
@pytest_twisted.ensureDeferred
async def test_processor_time_is_looked_at_too(engine: Limited) -> None:
    """A job that ignores SIGXCPU is killed a moment later."""
    how, exit_, limit = await engine.death("burn_deaf")
    assert (how, exit_) == ("exit", Exit(signal=KILL, name="SIGKILL", oom=None))
    assert limit is not None
    assert limit.startswith("cpu limit of 1 s (cpu_s): it used ")


@pytest.mark.usefixtures("watched_closely")
@pytest.mark.parametrize("far", [False, True])
@pytest_twisted.ensureDeferred
async def test_memory_of_the_whole_tree_counts(engine: Limited, *, far: bool) -> None:
    """Three children of 60 MB under a limit of 128 MiB: all are killed, `exit.oom` and the message say why. So it is
    when they have forked twice and left the session.
    """  # fmt: skip
    how, exit_, limit = await engine.death("have_hogs", count=3, size=60 * MIB, far=far)
    assert (how, exit_) == ("exit", Exit(signal=KILL, name="SIGKILL", oom=True))
    assert limit is not None
    assert limit.startswith("memory limit of 128 MiB (max_rss): it used ")
    assert limit.endswith(" of it before it began")
    await gone(*engine.items()[0])


@pytest.mark.usefixtures("watched_closely")
@pytest_twisted.ensureDeferred
async def test_memory_that_a_family_shares_counts_once(engine: Limited, tmp_path: Path) -> None:
    """Six forked children of a parent of 60 MB need 60 MB together, though each shows them all."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    no = engine.begin("fork_family", count=6, size=60 * MIB, gate=str(gate))
    with os.fdopen(await _writer(gate), "w"):
        await pause(0.2)  # ten looks
    (result,) = await engine.until(lambda: [each for each in engine.of(Result) if each.no == no])
    assert (result.error, result.body) == (None, b"%d" % (60 * MIB))
    assert engine.deaths == {}


async def _writer(fifo: Path) -> int:
    """The writing end, once a reader has come."""
    for _ in range(int(WAIT_S / 0.02)):
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            await pause(0.02)
    raise AssertionError("nobody reads")


@pytest.mark.usefixtures("watched_closely")
@pytest_twisted.ensureDeferred
async def test_defaults_hold_for_tasks_that_say_nothing(tmp_path: Path) -> None:
    """The daemon's limits: memory, descriptors and files by the kernel, processor time by the look."""
    defaults = Limits(max_rss=512 * MIB, cpu_s=1, open_files=100, file_bytes=20_000)
    engine = await Limited(tmp_path, limits=defaults).started()
    try:
        found = await engine.value("free")
        assert found["FSIZE"][0] == 20_000
        assert 100 < found["NOFILE"][0] < 140
        assert 400 * MIB < found["DATA"][0] < 700 * MIB
        own = await engine.value("limited")
        assert (own["FSIZE"][0], own["CPU"][0] > 60) == (10_000, True), "its own go before"
        again = await engine.value("free")
        assert {**again, "DATA": found["DATA"]} == found, "as before; memory is counted from what there is"
        assert await engine.ended("free_program") == (None, b'{"code":0}')
        assert engine.items() == ["103", "1", str(20_000 // 512), str((512 * MIB + STACKS_BYTES) // 1024)]
        how, _, limit = await engine.death("burn_freely")
        assert how == "exit"
        assert limit is not None
        assert limit.startswith("cpu limit of 1 s (cpu_s): it used ")
    finally:
        await engine.pool.stop().addTimeout(WAIT_S, reactor())


@pytest_twisted.ensureDeferred
async def test_without_limits_nothing_is_looked_at(engine: Limited) -> None:
    """No timer runs for an attempt without limits, and none after the end of one that has some."""
    usage = engine.pool._launcher.usage
    await engine.value("free")
    assert usage._timer is None
    await engine.value("limited")
    assert usage._timer is None


# -- kills by the kernel --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_kill_that_the_kernel_has_counted_is_want_of_memory(engine: Limited, tmp_path: Path) -> None:
    """F26: SIGKILL of a worker or program is its attempt's own doing if the counter has grown, else a loss. Of an io
    worker, where nobody can be named, it is a loss all the same.
    """  # fmt: skip
    vmstat = tmp_path / "proc/vmstat"
    vmstat.parent.mkdir()
    vmstat.write_text("oom_kill 3\n")
    oom = engine.pool._launcher.oom
    oom.stop()
    oom._counter = lambda: Counters(tmp_path)
    oom.start()
    killed, counted = Exit(signal=KILL, name="SIGKILL", oom=None), Exit(signal=KILL, name="SIGKILL", oom=True)
    assert await engine.death("be_killed") == ("lost", killed, None)
    vmstat.write_text("oom_kill 4\n")
    assert await engine.death("be_killed") == ("exit", counted, None)
    assert await engine.death("be_killed") == ("lost", killed, None)
    error = await engine.error("kill_program")
    assert (error.kind, error.exit) == ("lost", killed)
    vmstat.write_text("oom_kill 5\n")
    error = await engine.error("kill_program")
    assert (error.kind, error.exit) == ("crashed", counted)
    assert error.message == "the kernel ended it for want of memory"
    vmstat.write_text("oom_kill 6\n")
    worker = engine.worker("io")
    assert isinstance(worker, WorkerProcess)
    assert worker.pid is not None
    os.kill(worker.pid, KILL)
    death = await engine.until(lambda: engine.deaths.get(worker.id))
    assert death == Death("lost", counted)


# -- programs -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_program_gets_its_limits(engine: Limited) -> None:
    """Hard ones: it cannot raise them again. The next program has none of them."""
    assert await engine.ended("show_limits") == (None, b'{"code":0}')
    assert engine.items() == ["67", "7", "2048", str((64 * MIB + STACKS_BYTES) // 1024)]
    engine.messages.clear()
    await engine.ended("free_program")
    assert engine.items()[1:] == ["unlimited"] * 3


@pytest_twisted.ensureDeferred
async def test_a_program_that_passes_a_limit_is_told_by_its_name(engine: Limited, tmp_path: Path) -> None:
    """Processor time and file size end it by their signals."""
    error = await engine.error("burn_program")
    assert (error.kind, error.exit) == ("crashed", Exit(signal=XCPU, name="SIGXCPU", oom=False))
    assert error.message == "cpu limit of 1 s (cpu_s): ended by SIGXCPU"
    error = await engine.error("c_program", path=str(tmp_path / "big"))
    assert (error.kind, error.exit) == ("crashed", Exit(signal=XFSZ, name="SIGXFSZ", oom=False))
    assert error.message == "file limit of 9.8 KiB (file_bytes): ended by SIGXFSZ"
    error = await engine.error("eat_program")
    assert (error.kind, error.exit) == ("crashed", Exit(code=1))
    assert "MemoryError" in error.message


@pytest.mark.usefixtures("watched_closely")
@pytest_twisted.ensureDeferred
async def test_memory_of_the_tree_of_a_program_counts(engine: Limited, tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    keep = os.open(fifo, os.O_RDWR)
    try:
        error = await engine.error("hog_program", fifo=str(fifo))
    finally:
        os.close(keep)
    assert (error.kind, error.exit) == ("crashed", Exit(signal=KILL, name="SIGKILL", oom=True))
    assert error.message.startswith("memory limit of 128 MiB (max_rss): it used ")


# -- behind a launcher prefix -----------------------------------------------------------------------------------------

PREFIXES = {
    "execs": 'echo "$@" >> prefixed; shift; exec "$@"',
    "forks": 'echo "$@" >> prefixed; shift; "$@" & wait $!',
}


@pytest.mark.parametrize("how", PREFIXES)
@pytest_twisted.ensureDeferred
async def test_a_launcher_prefix_stands_before_workers_and_programs(tmp_path: Path, how: str) -> None:
    """One that becomes the program, one that waits for it: limits reach the code that runs, deaths keep their name."""
    script = tmp_path / "prefix"
    script.write_text(f"#!/bin/sh\ncd {tmp_path}\n{PREFIXES[how]}\n")
    script.chmod(0o755)
    engine = await Limited(tmp_path, prefix=(str(script), "--some-option")).started()
    try:
        pid, parent = await engine.value("who")
        child = engine.pool._slots[-1].worker
        assert child is not None
        assert ({"execs": pid, "forks": parent}[how], child.code_pids) == (child.pid, [pid])
        assert (await engine.value("limited"))["FSIZE"][0] == 10_000
        assert (await engine.value("free"))["FSIZE"][0] == UNLIMITED
        error = await engine.error("open_many", count=1000)
        assert error.type == "OSError"
        assert engine.logs("stdout")[-1] == "open: 64"
        assert (await engine.death("be_killed"))[:2] == ("lost", Exit(signal=KILL, name="SIGKILL", oom=None))
        assert (await engine.death("burn", seconds=60))[0::2] == (
            "exit", "cpu limit of 1 s (cpu_s): ended by SIGXCPU",
        )  # fmt: skip
        engine.messages.clear()
        assert await engine.ended("show_limits") == (None, b'{"code":0}')
        assert engine.items()[:2] == ["67", "7"]
    finally:
        await engine.pool.stop().addTimeout(WAIT_S, reactor())
    lines = (tmp_path / "prefixed").read_text().splitlines()
    assert all(line.startswith("--some-option ") for line in lines)
    assert [sum(word in line for line in lines) for word in ("jobsvc.worker.io", "jobsvc.worker.cpu", "ulimit")] == [
        1, 3, 1,
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_behind_a_prefix_that_hides_the_worker_limits_are_for_all_of_its_tree() -> None:
    """In a namespace of its own a worker knows itself by a number that is another process here."""
    worker = FakeWorker(module="elsewhere", prefix=("env",))
    await worker.started()
    assert worker.process.pid is not None
    assert worker.process.code_pids == [worker.process.pid]
    worker.process.send([start("have_children")])
    children = await worker.record.until(worker.record.items)
    assert sorted(worker.process.code_pids) == sorted([worker.process.pid, *children])
    await worker.end()
    assert worker.process.code_pids == []
