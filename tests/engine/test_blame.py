"""F13, F14: a worker has ended by itself while it ran several attempts: who has crashed, who may have, who has not."""

from __future__ import annotations

import pytest

from jobsvc.model.errors import Exit
from jobsvc.model.job import Job
from jobsvc.model.limits import LOSSES_MAX
from jobsvc.ports import Death
from tests.engine.fakes import FakeWorker, Rig


def segfault(worker: FakeWorker, on_loop: tuple[int, int] | None = None) -> None:
    """The worker dies of it; `on_loop`: the coroutine whose step ran."""
    worker.die(Death("exit", Exit(signal=11, name="SIGSEGV"), on_loop))


def begun(rig: Rig, worker: FakeWorker, task: str, **fields: object) -> Job:
    job = rig.submit(task, **fields)
    worker.begin(job)
    return job


def test_the_only_thread_has_crashed_and_coroutines_beside_it_run_again(rig: Rig) -> None:
    """Coroutines that waited cannot have done it: they lose no try and no loss is counted."""
    worker = rig.worker("io")
    thread = begun(rig, worker, "thumbnail")
    loops = [begun(rig, worker, "fetch") for _ in range(3)]
    segfault(worker)
    assert (rig.state(thread)[0], rig.error(thread).kind) == ("failed", "crashed")
    assert rig.error(thread).exit == Exit(signal=11, name="SIGSEGV")
    for job in loops:
        assert rig.state(job) == ("queued", "lost")
        assert (rig.get(job).attempt, rig.get(job).losses) == (0, 0)


def test_the_coroutine_whose_step_ran_has_crashed(rig: Rig) -> None:
    worker = rig.worker("io")
    waits, runs = begun(rig, worker, "fetch"), begun(rig, worker, "fetch", retries=1)
    start = worker.start_of(runs)
    segfault(worker, (start.no, start.epoch))
    assert rig.state(runs) == ("retrying", "retry")
    assert rig.state(waits) == ("queued", "lost")
    assert rig.get(waits).losses == 0


def test_where_several_may_have_done_it_each_is_lost_once(rig: Rig) -> None:
    """None is failed for what its neighbour did; and none goes on like that for ever."""
    jobs = [rig.submit("thumbnail") for _ in range(2)]
    for n in range(1, LOSSES_MAX):
        worker = rig.worker("io")
        for job in jobs:
            worker.begin(job)
        segfault(worker)
        for job in jobs:
            assert rig.state(job) == ("queued", "lost")
            assert (rig.get(job).attempt, rig.get(job).losses) == (0, n)
    worker = rig.worker("io")
    for job in jobs:
        worker.begin(job)
    segfault(worker)
    assert [(rig.state(job)[0], rig.error(job).kind) for job in jobs] == [("failed", "lost")] * 2


def test_a_given_up_thread_may_have_done_it_too(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 8})
    given_up = begun(rig, worker, "stubborn", retries=0)
    rig.clock.advance(5)
    job = begun(rig, worker, "thumbnail")
    segfault(worker)
    assert (rig.state(given_up)[0], rig.error(given_up).kind) == ("failed", "timeout")
    assert (rig.state(job), rig.get(job).losses) == (("queued", "lost"), 1)


def test_where_none_is_seen_any_coroutine_may_have_done_it(rig: Rig) -> None:
    """By a thread of its own, `asyncio.to_thread` for instance."""
    worker = rig.worker("io")
    jobs = [begun(rig, worker, "fetch") for _ in range(2)]
    segfault(worker)
    assert [rig.get(job).losses for job in jobs] == [1, 1]


@pytest.mark.parametrize("task", ["thumbnail", "fetch"])
def test_what_must_not_run_twice_is_failed_whoever_did_it(rig: Rig, task: str) -> None:
    worker = rig.worker("io")
    job = begun(rig, worker, task, on_lost="fail")
    begun(rig, worker, "thumbnail")
    begun(rig, worker, "thumbnail")
    segfault(worker)
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "lost")


def test_a_quick_job_that_always_ends_its_worker_is_not_started_for_ever(rig: Rig) -> None:
    """F14: of quick ones the worker need not say that they began, so its last word may have gone with it."""
    rig.timed(rig.worker("io"), "thumbnail", 0.0001)
    rig.workers[0].lose()
    job = rig.submit("thumbnail")
    for _ in range(LOSSES_MAX):
        worker = rig.worker("io")
        assert worker.start_of(job).quick
        worker.lose()
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "lost")
    crashing = rig.submit("thumbnail")
    worker = rig.worker("io")
    assert worker.start_of(crashing).quick
    segfault(worker)
    assert (rig.state(crashing)[0], rig.error(crashing).kind) == ("failed", "crashed")
