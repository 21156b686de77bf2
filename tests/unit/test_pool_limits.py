"""The rules of limits: what is over, what a program is started with, what is set on a worker and what is refused."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from jobsvc.model.errors import Exit, JobError
from jobsvc.model.frames import Result, Returned, Start
from jobsvc.model.limits import MIB
from jobsvc.model.task import NO_LIMITS, Limits
from jobsvc.pool import limits as pool_limits
from jobsvc.pool.limits import (
    CPU_HARD_S,
    NOTHING,
    STACKS_BYTES,
    WATCH_S,
    Over,
    ProgramLimits,
    UsageWatch,
    excess,
    explain,
    launch_options,
    measured,
    signalled,
    within,
)
from jobsvc.pool.usage import Usage
from jobsvc.pool.worker_limits import WorkerLimits, highest

ALL = Limits(max_rss=100 * MIB, cpu_s=10, open_files=64, file_bytes=1000)


def start(task: str, no: int = 1) -> Start:
    return Start(no, 1, bytes(16), task, "process", 1, None, False, 0, b"{}")


def test_memory_is_over_when_it_is_more_than_the_limit() -> None:
    used = Usage([1], 100 * MIB, 0.0)
    assert excess(ALL, used, NOTHING, 0.0) is None
    over = excess(ALL, used._replace(rss_bytes=101 * MIB), Usage([1], 20 * MIB, 0.0), 0.0)
    assert over == Over(
        "memory limit of 100 MiB (max_rss): it used 101 MiB, 20 MiB of it before it began", oom=True
    )
    assert excess(NO_LIMITS, Usage([1], 1 << 50, 1e9), NOTHING, 0.0) is None


def test_memory_of_several_is_counted_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their plain sum only says that it is worth a closer look."""
    shares = {"bytes": 90 * MIB}
    used = Usage([1, 2], 180 * MIB, 0.0)
    monkeypatch.setattr(pool_limits, "usage_of", lambda root: used)
    monkeypatch.setattr(pool_limits, "fair_bytes", lambda pids: shares["bytes"])
    assert excess(ALL, measured(1, ALL.max_rss), NOTHING, 0.0) is None
    shares["bytes"] = 110 * MIB
    over = excess(ALL, measured(1, ALL.max_rss), NOTHING, 0.0)
    assert over == Over("memory limit of 100 MiB (max_rss): it used 110 MiB", oom=True)
    assert measured(1, None) == measured(1, 200 * MIB) == used


def at_once(work: Callable[[], list[Usage]], told: Callable[[list[Usage]], None]) -> None:
    """In the place of the thread that measures."""
    told(work())


def test_what_is_found_too_late_is_not_judged() -> None:
    """A thread measures: whoever has ended meanwhile is left alone, and there is one look at a time."""
    clock = Clock()
    asked: list[Callable[[], None]] = []
    watch = UsageWatch(clock, lambda work, told: asked.append(lambda: at_once(work, told)))
    passed: list[Over] = []
    tiny = Limits(max_rss=1)
    first, _second = (ProgramLimits(watch, os.getpid(), tiny, passed.append) for _ in range(2))
    clock.advance(WATCH_S)
    clock.advance(WATCH_S)
    (measure,) = asked
    first.stop()
    measure()
    assert len(passed) == 1
    assert clock.getDelayedCalls() == [], "the second was over its limit, and nothing is watched any more"


def test_processor_time_counts_from_the_begin() -> None:
    before = Usage([1], 0, 500.0)
    assert excess(ALL, Usage([1], 0, 511.0), before, 1.5) is None
    over = excess(ALL, Usage([1], 0, 511.6), before, 1.5)
    assert over == Over("cpu limit of 10 s (cpu_s): it used 11.6 s", oom=False)


def test_only_a_signal_with_its_limit_names_one() -> None:
    """SIGXCPU without a limit was sent by somebody."""
    ends = {name: Exit(signal=1, name=name) for name in ("SIGXCPU", "SIGXFSZ", "SIGSEGV")}
    assert [over is not None for over in (signalled(ALL, end) for end in ends.values())] == [
        True,
        True,
        False,
    ]
    assert [signalled(NO_LIMITS, end) for end in ends.values()] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "message", "more"),
    [
        ("MemoryError", "", "its memory limit is 100 MiB (max_rss)"),
        ("MemoryError", "no room", "no room; its memory limit is 100 MiB (max_rss)"),
        ("OSError", "[Errno 24] x", "[Errno 24] x; it may open 64 files (open_files)"),
        ("OSError", "[Errno 27] x", "[Errno 27] x; its files may have 1000 bytes (file_bytes)"),
        ("OSError", "[Errno 2] x", "[Errno 2] x"),
        ("ValueError", "[Errno 24] x", "[Errno 24] x"),
    ],
)
def test_an_error_names_the_limit_that_made_it(kind: str, message: str, more: str) -> None:
    error = JobError("task_error", kind, message)
    explain(error, NO_LIMITS)
    assert error.message == message
    explain(error, ALL)
    assert error.message == more


def test_a_program_gets_no_more_than_the_daemon_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit above the daemon's own could not be set, and the program would not start."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unlimited)
    data = 100 * MIB + STACKS_BYTES
    assert launch_options(ALL)[1::2] == [
        f"CPU=10:{10 + CPU_HARD_S}", "NOFILE=67:67", "FSIZE=1000:1000", f"DATA={data}:{data}",
    ]  # fmt: skip
    monkeypatch.setattr(resource, "getrlimit", lambda which: (5, 12))
    assert launch_options(ALL)[1::2] == ["CPU=10:12", "NOFILE=12:12", "FSIZE=12:12", "DATA=12:12"]
    assert launch_options(NO_LIMITS) == []
    assert within(resource.RLIM_INFINITY, 12) == 12


@pytest.mark.parametrize(
    ("more", "taken", "limit"),
    [(64, [], 64), (64, [0, 1, 2, 3, 200], 68), (64, [0, 1, 66], 66), (64, list(range(100)), 164)],
)
def test_descriptors_that_are_open_already_do_not_count(more: int, taken: list[int], limit: int) -> None:
    """Exactly so many numbers below the limit are free."""
    assert highest(more, taken) == limit
    assert len(set(range(limit)) - set(taken)) == more


class Rlimits:
    """The soft limits of one process, as they are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.soft = {resource.RLIMIT_FSIZE: 4000}
        self.hard = 5000
        self.error: Exception | None = None
        monkeypatch.setattr(resource, "prlimit", self)

    def __call__(self, pid: int, which: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        assert pid == os.getpid()
        if limits is not None:
            if self.error is not None:
                raise self.error
            assert limits[1] == self.hard, "hard limits stay"
            self.soft[which] = limits[0]
        return self.soft.get(which, self.hard), self.hard


def made(watch: UsageWatch, defaults: Limits = NO_LIMITS, **own: Limits) -> WorkerLimits:
    pid = os.getpid()
    return WorkerLimits(
        watch, root=pid, pids=[pid], defaults=defaults, own=own, running=lambda: None, over=lambda over: None
    )


def test_a_limit_is_taken_back_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    rlimits = Rlimits(monkeypatch)
    limits = made(UsageWatch(Clock(), at_once), own=Limits(file_bytes=1000), vast=Limits(file_bytes=1 << 40))
    seen: list[Any] = []
    for task in ("other", "own", "own", "other", "vast", "other"):
        limits.before([start(task)])
        seen.append(rlimits.soft[resource.RLIMIT_FSIZE])
    assert seen == [4000, 1000, 1000, 4000, 5000, 4000], "where the hard limit is lower, that one holds"


def test_only_what_has_limits_of_use_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hand-over of such an attempt to its end, whichever it is; with defaults until the worker ends."""
    Rlimits(monkeypatch)
    clock = Clock()
    watch = UsageWatch(clock, at_once)
    limits = made(watch, files=Limits(open_files=64), memory=Limits(max_rss=1 << 50))
    for end in (Result(1, 1, 0, 0.0, None, 0, b""), Returned([(1, 1)])):
        limits.before([start("files"), start("other")])
        assert clock.getDelayedCalls() == []
        limits.before([start("memory")])
        assert len(clock.getDelayedCalls()) == 1
        clock.advance(WATCH_S)
        limits.heard([end])
        assert clock.getDelayedCalls() == []
    standing = made(watch, Limits(cpu_s=5))
    standing.before([start("other")])
    standing.heard([Result(1, 1, 0, 0.0, None, 0, b"")])
    assert len(clock.getDelayedCalls()) == 1
    assert standing.ended(Exit(code=0), None) is None
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("error", [ProcessLookupError(), PermissionError()])
def test_a_worker_on_which_nothing_can_be_set_is_still_looked_at(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """It is dying, or a launcher prefix has made it another user's."""
    rlimits = Rlimits(monkeypatch)
    rlimits.error = error
    clock = Clock()
    limits = made(UsageWatch(clock, at_once), own=ALL)
    limits.before([start("own")])
    assert rlimits.soft[resource.RLIMIT_FSIZE] == 4000
    assert len(clock.getDelayedCalls()) == 1
    limits.stop()
