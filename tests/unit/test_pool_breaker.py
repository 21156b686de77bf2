"""Circuit breakers of task modules: the breaker on a Clock, and what the pool does with it, with made-up workers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from jobsvc.model.errors import Exit
from jobsvc.model.frames import Manifest
from jobsvc.pool.breaker import BREAKER_BASE_S, BREAKER_DEATHS, BREAKER_MAX_S, Breaker, ModuleFault
from jobsvc.pool.generation import ModuleLoadError
from jobsvc.pool.rows import flaws
from jobsvc.ports import Death
from tests.unit.test_pool_slot import CRASH, KILLED, QUIT, Answer, FakePool, FakeProcess, spec

ERROR = ModuleFault("m", "task module m: ImportError: no b\nTraceback:\n  line 1\n", certain=True)
DEATH = ModuleFault("m", "the cpu worker was ended by SIGKILL", certain=False)


class Rig:
    """A breaker whose tries the test makes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.due: list[str] = []
        self.breaker = Breaker(self.clock, lambda: int(self.clock.seconds() * 1e6), self.due.append)


def test_an_error_opens_at_once_and_keeps_its_words() -> None:
    rig = Rig()
    rig.clock.advance(7)
    assert rig.breaker.failed(ERROR)
    broken = rig.breaker.open["m"]
    assert (broken.line, broken.since_us) == ("task module m: ImportError: no b", 7_000_000)
    assert broken.again_us == 7_000_000 + BREAKER_BASE_S * 1e6
    assert not rig.breaker.failed(ModuleFault("m", "SyntaxError", certain=True)), "it is open already"
    assert (broken.line, broken.since_us) == ("SyntaxError", 7_000_000)
    rig.breaker.stop()


def test_deaths_open_only_when_they_follow_each_other() -> None:
    rig = Rig()
    for _ in range(BREAKER_DEATHS - 1):
        assert not rig.breaker.failed(DEATH)
    rig.breaker.loaded(["m", "never_failed"])
    for _ in range(BREAKER_DEATHS - 1):
        assert not rig.breaker.failed(DEATH)
    assert rig.breaker.failed(DEATH)
    rig.breaker.stop()


def test_tries_come_after_ever_longer_pauses_and_end_with_the_first_that_works() -> None:
    rig = Rig()
    rig.breaker.failed(ERROR)
    pause_s = BREAKER_BASE_S
    for n in range(1, 10):
        rig.clock.advance(pause_s - 0.001)
        assert len(rig.due) == n - 1
        rig.clock.advance(0.001)
        assert len(rig.due) == n
        rig.clock.advance(10 * BREAKER_MAX_S)
        assert len(rig.due) == n, "one try at a time"
        rig.breaker.rest("m")
        pause_s = min(2 * pause_s, BREAKER_MAX_S)
    assert pause_s == BREAKER_MAX_S
    rig.clock.advance(pause_s)
    assert [broken.name for broken in rig.breaker.close(["m", "n"])] == ["m"]
    rig.breaker.rest("m")
    rig.clock.advance(10 * BREAKER_MAX_S)
    assert (len(rig.due), rig.breaker.open, rig.clock.getDelayedCalls()) == (10, {}, [])


def test_who_is_in_a_hurry_need_not_wait() -> None:
    rig = Rig()
    rig.breaker.failed(ERROR)
    rig.breaker.failed(ModuleFault("n", "x", certain=True))
    rig.breaker.hurry()
    rig.clock.advance(0)
    assert sorted(rig.due) == ["m", "n"]
    rig.breaker.hurry()
    rig.clock.advance(0)
    assert len(rig.due) == 2, "both are being tried"
    rig.breaker.stop()
    rig.breaker.rest("m")
    assert rig.clock.getDelayedCalls() == []


# == the pool ======================================================================================================

BROKEN = "task module other: ImportError: gone\nTraceback:\n  line 1"


def two_modules(cpu_workers: int = 1) -> FakePool:
    """A started pool with modules `m` (task `a`) and `other` (task `other`)."""
    pool = FakePool(cpu_workers, ("m", "other"))
    answer = Answer(pool.start())
    pool.live("a")
    assert answer.value is None
    pool.heard()
    return pool


def again(pool: FakePool, death: Death = CRASH) -> FakeProcess:
    """The cpu worker dies; its successor."""
    next(process for process in pool.processes if process.kind == "cpu").die(death)
    pool.clock.advance(0)
    (cpu,) = [process for process in pool.processes if process.kind == "cpu"]
    pool.heard()
    return cpu


def broken(pool: FakePool) -> dict[str, int]:
    """The broken modules, and how many workers hold each."""
    return {row.name: row.holders for row in pool.modules() if row.broken is not None}


def break_other(pool: FakePool) -> FakeProcess:
    """Its import fails in a cpu worker that is started again."""
    cpu = again(pool)
    cpu.loaded({"m": ["a"]}, other=BROKEN)
    assert pool.heard() == [("ready", cpu.id)]
    return cpu


def test_a_module_that_fails_at_a_restart_leaves_the_others_at_work() -> None:
    """F29: the worker serves with what it has; the tasks of the broken module stay known."""
    pool = two_modules()
    cpu = break_other(pool)
    assert cpu.lacks == {"other"}
    assert broken(pool) == {"other": 1}, "the io worker holds it still"
    ((check, words),) = flaws(pool.modules())
    assert check == "module other"
    assert "ImportError: gone" in words
    assert "the 1 workers run which loaded it before" in words
    assert "tried again at 1970-01-01" in words
    pool.processes[0].die()
    pool.clock.advance(0)
    io = pool.processes[-1]
    assert io.without == {"other"}
    io.loaded({"m": ["a"]})
    assert io.lacks == {"other"}
    assert broken(pool) == {"other": 0}
    pool.stop()
    pool.live()
    for process in list(pool.processes):
        process.die(QUIT)


def test_a_broken_module_is_tried_beside_and_comes_back_everywhere() -> None:
    """F29: one worker of each kind proves that it loads; then all workers are replaced, and no task has changed."""
    pool = two_modules()
    break_other(pool)
    pool.clock.advance(BREAKER_BASE_S)
    trial = pool.processes[2:]
    assert [(process.kind, process.without) for process in trial] == [
        ("io", frozenset()),
        ("cpu", frozenset()),
    ]
    trial[0].load("a")
    trial[1].loaded({"m": ["a"]}, other=BROKEN)
    for process in trial:
        process.die(KILLED)
    assert (pool.heard(), broken(pool)) == ([], {"other": 1})
    pool.clock.advance(2 * BREAKER_BASE_S)
    for process in pool.processes[2:]:
        process.load("a")
    for process in pool.processes[4:]:
        process.load("a")
    assert pool.heard() == [
        ("tasks", ["a", "other"]),
        ("ready", "io-4"), ("ready", "cpu-5"), ("retiring", "io-1"), ("retiring", "cpu-2"),
    ]  # fmt: skip
    assert broken(pool) == {}
    assert not any(process.lacks for process in pool.processes[4:])


def test_a_module_that_kills_its_worker_is_left_out_after_some_deaths() -> None:
    """F29: who died in its import tells which it was."""
    pool = two_modules()
    cpu = again(pool)
    for _ in range(BREAKER_DEATHS):
        assert cpu.without == set()
        cpu.loading = "other"
        cpu.die(Death("exit", Exit(signal=11, name="SIGSEGV")))
        pool.clock.advance(BREAKER_BASE_S / 5)
        (cpu,) = [process for process in pool.processes if process.kind == "cpu"]
    assert cpu.without == {"other"}
    assert "was ended by SIGSEGV before it had loaded the tasks; its jobs" in flaws(pool.modules())[0][1]


def test_a_module_that_hangs_is_left_out_at_once() -> None:
    """F29: it has cost its time once already."""
    pool = two_modules()
    cpu = again(pool)
    cpu.loading = "other"
    cpu.owner.broken("its import hangs")
    assert cpu.did == ["destroy"]
    cpu.die(KILLED)
    pool.clock.advance(BREAKER_BASE_S / 5)
    (cpu,) = [process for process in pool.processes if process.kind == "cpu"]
    assert cpu.without == {"other"}
    cpu.loaded({"m": ["a"]})
    assert pool.heard() == [("ready", cpu.id)]
    assert pool.trouble() is None


def test_what_is_no_module_s_fault_breaks_none() -> None:
    """F29: an interpreter that is gone: tried again ever more slowly, and it is told why."""
    pool = two_modules()
    cpu = again(pool)
    for _ in range(2 * BREAKER_DEATHS):
        cpu.die(Death("exit", Exit(code=127)))
        pool.clock.advance(60)
        cpu = pool.processes[-1]
    assert broken(pool) == {}
    assert "exited with status 127" in (pool.trouble() or "")
    cpu.load("a")
    assert pool.trouble() is None


def test_a_start_and_a_reload_want_every_module() -> None:
    """A mistake in new code is told to who brings it; nothing serves with half of it."""
    pool = FakePool(1, ("m", "other"))
    answer = Answer(pool.start())
    pool.processes[1].loaded({"m": ["a"]}, other=BROKEN)
    assert "ImportError" in answer.failure(ModuleLoadError)
    pool = two_modules()
    answer = Answer(pool.reload())
    pool.processes[3].loaded({"m": ["a"]}, other=BROKEN)
    assert "ImportError" in answer.failure(ModuleLoadError)
    assert (pool.heard(), broken(pool)) == ([], {})


def test_a_reload_tries_a_broken_module_at_once() -> None:
    pool = two_modules()
    break_other(pool)
    answer = Answer(pool.reload())
    for process in pool.processes[2:]:
        assert process.without == set()
        process.load("a")
    assert answer.value.tasks == 2
    assert broken(pool) == {}
    pool.clock.advance(10 * BREAKER_MAX_S)
    assert len(pool.processes) == 4, "nothing is left to be tried"


def test_of_two_broken_modules_each_comes_back_by_itself() -> None:
    """A reload that fails for the one has the other tried at once."""
    pool = two_modules()
    cpu = again(pool)
    cpu.loaded({}, m=BROKEN, other=BROKEN)
    assert cpu.lacks == {"a", "other"}
    answer = Answer(pool.reload())
    for process in pool.processes[2:]:
        process.loaded({"m": ["a"]}, other=BROKEN)
    answer.failure(ModuleLoadError)
    for process in list(pool.processes[2:]):
        process.die(KILLED)
    pool.clock.advance(0)
    tries = pool.processes[2:]
    assert [process.without for process in tries] == [{"other"}, {"other"}, {"m"}, {"m"}]
    for process in tries:
        process.loaded({"m": ["a"]} if process.without == {"other"} else {}, **(
            {} if process.without == {"other"} else {"other": BROKEN}
        ))  # fmt: skip
    for process in pool.processes[6:]:
        assert process.without == {"other"}
        process.loaded({"m": ["a"]})
    assert list(broken(pool)) == ["other"]
    assert ("tasks", ["a", "other"]) in pool.heard(), "its tasks stay known"


def test_code_that_changes_beside_a_broken_module_is_taken_over() -> None:
    """Who brings new code without a reload and with a mistake in one module gets the rest of it."""
    pool = two_modules()
    pool.processes[1].die()
    pool.clock.advance(0)
    stale = pool.processes[1]
    pool.heard()
    stale.loaded({"m": ["b"]}, other=BROKEN)
    assert stale.did == ["destroy"]
    fresh = pool.processes[2:]
    assert [process.without for process in fresh] == [{"other"}, {"other"}]
    for process in fresh:
        process.loaded({"m": ["b"]})
    assert ("tasks", ["b", "other"]) in pool.heard()
    assert [process.lacks for process in fresh] == [{"other"}, {"other"}]


def test_a_worker_that_must_go_is_replaced_by_one_without_the_module() -> None:
    """An io worker whose threads hang is worse than one that lacks a module."""
    pool = two_modules()
    answer = Answer(pool.replace("io-1"))
    pool.processes[2].loaded({"m": ["a"]}, other=BROKEN)
    pool.processes[2].die(KILLED)
    fresh = pool.processes[-1]
    assert (fresh.kind, fresh.without) == ("io", frozenset({"other"}))
    fresh.loaded({"m": ["a"]})
    assert answer.value is None
    assert pool.heard() == [("ready", fresh.id), ("retiring", "io-1")]


def test_a_worker_that_only_should_go_is_not() -> None:
    """It holds a module that its successor would lack."""
    pool = two_modules()
    answer = Answer(pool.replace("io-1", whole=True))
    pool.processes[2].loaded({"m": ["a"]}, other=BROKEN)
    assert answer.value is None
    assert (pool.heard(), list(broken(pool))) == ([], ["other"])


def test_a_worker_started_without_a_module_that_works_again_does_not_serve() -> None:
    pool = two_modules(cpu_workers=2)
    pool.processes[2].die()
    pool.clock.advance(0)
    pool.processes[2].loaded({"m": ["a"]}, other=BROKEN)
    pool.processes[1].die()
    pool.clock.advance(0)
    late = pool.processes[-1]
    assert late.without == {"other"}
    answer = Answer(pool.reload())
    for process in pool.processes[3:]:
        if process is not late:
            process.load("a")
    assert answer.value.tasks == 2
    pool.heard()
    late.loaded({"m": ["a"]})
    assert "ready" not in dict(pool.heard())
    assert late.did == ["destroy"]


@pytest.mark.parametrize("when", ["trial", "change over"])
def test_a_stop_during_a_try(when: str) -> None:
    pool = two_modules()
    break_other(pool)
    pool.clock.advance(BREAKER_BASE_S)
    if when == "change over":
        for process in pool.processes[2:]:
            process.load("a")
    answer = Answer(pool.stop())
    for process in list(pool.processes):
        process.die(QUIT)
    assert answer.value is None
    pool.clock.advance(10 * BREAKER_MAX_S)
    assert (pool.processes, pool.clock.getDelayedCalls()) == ([], [])


def test_a_task_that_two_modules_hold_is_lost_only_with_both() -> None:
    pool = FakePool(1, ("m", "other"))
    pool.start()
    shared: dict[str, Any] = {"m": ["a"], "other": ["a", "b"]}
    for process in pool.processes:
        process.owner.loaded(Manifest([spec("a"), spec("b")], shared))
    pool.heard()
    cpu = again(pool)
    cpu.loaded({"m": ["a"]}, other=BROKEN)
    assert pool.heard() == [("ready", cpu.id)]
    assert cpu.lacks == {"b"}
