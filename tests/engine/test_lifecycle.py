"""Start, reload, retirement of workers, drain."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from jobsvc.engine.engine import Engine, EngineConfig
from jobsvc.model.errors import Exit, JobsvcError
from jobsvc.model.task import TaskSpec
from jobsvc.ports import Death
from tests.engine import tasks
from tests.engine.fakes import START_US, FakeWorker, Rig, error_of, result_of


def without(*names: str) -> dict[str, TaskSpec]:
    return {name: spec for name, spec in tasks.ALL.items() if name not in names}


# -- start -----------------------------------------------------------------------------------------------------------


def test_what_was_queued_at_the_start_is_found(rig: Rig) -> None:
    jobs = [rig.submit("thumbnail") for _ in range(2)]
    later = rig.submit("thumbnail", delay_s=5)
    clock = Clock()
    engine = Engine(
        rig.store, clock, lambda: START_US + round(clock.seconds() * 1e6), lambda k: 1, lambda a, b: b, EngineConfig(),
        lambda worker: None,
    )  # fmt: skip
    engine.tasks_changed(tasks.ALL)
    rig.engine.close()
    rig.engine = engine
    worker = rig.worker("io")
    assert worker.handed == {}
    result_of(Deferred.fromCoroutine(engine.start()))
    assert [start.id for start in worker.handed.values()] == [job.id for job in jobs]
    clock.advance(5)
    assert worker.has(later)
    engine.close()
    assert clock.getDelayedCalls() == []


# -- reload ----------------------------------------------------------------------------------------------------------


def test_a_job_whose_task_is_gone_waits_and_runs_when_it_is_back(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    running, job = rig.submit("thumbnail"), rig.submit("thumbnail")
    rig.reload(without("thumbnail"))
    worker.succeed(running)
    assert worker.handed == {}
    assert rig.state(job) == ("queued", "no_such_task")
    with pytest.raises(JobsvcError) as refusal:
        rig.job("thumbnail")
    assert refusal.value.code == "no_such_task"
    assert rig.engine.task("thumbnail") is None
    rig.reload(tasks.ALL)
    assert rig.state(job) == ("running", None)
    assert rig.states(job) == ["running"]
    assert worker.has(job)


def test_a_task_that_has_changed_its_executor_runs_on_the_new_one(rig: Rig) -> None:
    job = rig.submit("thumbnail")
    rig.reload(
        {**tasks.ALL, "thumbnail": msgspec.structs.replace(tasks.ALL["thumbnail"], executor="process")}
    )
    io, cpu = rig.worker("io"), rig.worker("cpu")
    assert io.handed == {}
    assert cpu.start_of(job).executor == "process"
    assert rig.get(job).executor == "process"


def test_a_retiring_worker_gives_back_what_has_not_begun_and_goes(rig: Rig) -> None:
    old = rig.worker()
    rig.timed(old, "quick", 0.0001)
    first, second, third = rig.submit_many("quick", 3)
    old.begin(first, frame=False)
    rig.reload(tasks.ALL)
    new = rig.worker()
    rig.engine.worker_retiring(old)
    assert old.recalls == 1
    assert old.quits == 0
    old.give_back(second, third)
    assert len(new.handed) == 1  # what was learnt of the old code is forgotten
    fourth = rig.submit("quick")
    assert fourth.id not in {start.id for start in old.handed.values()}
    old.succeed(first, b"1")
    assert old.quits == 1
    assert rig.state(first)[0] == "succeeded"
    old.die(Death("quit", Exit(code=0)))
    for job in (second, third, fourth):
        new.succeed(job)
    assert rig.free()
    assert rig.get(second).attempt == 1


def test_an_idle_worker_goes_at_once_and_is_told_once(rig: Rig) -> None:
    worker = rig.worker()
    rig.engine.worker_retiring(worker)
    rig.engine.worker_retiring(worker)
    assert worker.quits == 1


def test_attempts_finish_on_the_retiring_worker(rig: Rig) -> None:
    worker = rig.worker("io")
    job, timed = rig.submit("thumbnail"), rig.submit("spin")
    worker.begin(job)
    worker.begin(timed)
    rig.engine.worker_retiring(worker)
    worker.items(job, 1)
    worker.succeed(job)
    assert worker.quits == 0
    rig.clock.advance(5)
    worker.fail(timed, "cancelled")
    assert rig.state(timed)[0] == "failed"
    assert worker.quits == 1


def test_a_worker_that_dies_while_retiring_is_told_nothing_more(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    rig.engine.worker_retiring(worker)
    worker.lose()
    assert worker.quits == 0
    assert rig.state(job) == ("queued", "lost")
    assert rig.engine.running_on(worker.id) == 0


# -- drain -----------------------------------------------------------------------------------------------------------


def drained(rig: Rig) -> Deferred[None]:
    return Deferred.fromCoroutine(rig.engine.idle())


def test_a_drain_starts_nothing_and_accepts_nothing(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    running, queued = rig.submit("thumbnail"), rig.submit("thumbnail")
    scheduled = rig.submit("thumbnail", delay_s=1)
    assert not rig.engine.draining
    job = rig.job("thumbnail")
    rig.engine.stop_claiming()
    assert rig.engine.draining
    with pytest.raises(JobsvcError) as refusal:
        rig.engine.submit([job])
    assert refusal.value.code == "draining"
    assert refusal.value.context["retry_after_s"] > 0
    rig.clock.advance(60)
    idle = drained(rig)
    assert not idle.called
    worker.succeed(running)
    assert idle.called
    assert worker.handed == {}
    assert (rig.state(queued)[0], rig.state(scheduled)[0]) == ("queued", "scheduled")
    assert error_of(rig.engine.retry(running.id, "default")).code == "draining"
    result_of(rig.cancel(queued))  # reads, waits and cancels are still answered
    assert result_of(rig.engine.wait(queued.id, "default", 5)).state == "cancelled"


def test_a_drain_calls_back_what_has_not_begun(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    first, second = rig.submit_many("quick", 2)
    worker.begin(first, frame=False)
    rig.engine.stop_claiming()
    assert worker.recalls == 1
    worker.give_back(second)
    assert rig.state(second) == ("queued", "recalled")
    assert worker.tasks == ["quick"]
    worker.succeed(first)
    assert drained(rig).called


def test_what_does_not_end_is_stopped_and_queued_again_uncounted(rig: Rig) -> None:
    io, cpu = rig.worker("io"), rig.worker("cpu")
    thread, loop, process = rig.submit("thumbnail"), rig.submit("fetch"), rig.submit("add", {"a": 1})
    for worker, job in ((io, thread), (io, loop), (cpu, process)):
        worker.begin(job)
    rig.engine.stop_claiming()
    rig.engine.stop_all()
    idle = drained(rig)
    assert [rig.state(job) for job in (thread, loop, process)] == [("stopping", "drained")] * 3
    io.fail(loop, "cancelled")
    killed(cpu)
    io.die(Death("quit", Exit(signal=9, name="SIGKILL")))
    assert idle.called
    for job in (thread, loop, process):
        assert rig.state(job) == ("queued", "drained")
        assert rig.get(job).attempt == 0
        assert rig.states(job) == ["running", "stopping", "queued"]
        [attempt] = result_of(rig.engine.attempts(job.id, "default"))
        assert attempt.state == "drained"


def killed(worker: FakeWorker) -> None:
    worker.die(Death("killed", Exit(signal=9, name="SIGKILL")))


def test_what_must_not_run_twice_fails_when_a_drain_cuts_it_off(rig: Rig) -> None:
    cpu = rig.worker()
    job = rig.submit("once")
    cpu.begin(job)
    rig.engine.stop_claiming()
    rig.engine.stop_all()
    killed(cpu)
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "lost")


def test_what_ends_by_itself_during_a_drain_has_ended(rig: Rig) -> None:
    worker = rig.worker("io")
    job, failing = rig.submit("thumbnail"), rig.submit("thumbnail", retries=1)
    rig.engine.stop_claiming()
    rig.engine.stop_all()
    worker.succeed(job, b"1")
    worker.fail(failing)
    assert rig.state(job)[0] == "succeeded"
    assert rig.state(failing)[0] == "retrying"
    assert drained(rig).called


def test_without_attempts_a_drain_is_over_at_once(rig: Rig) -> None:
    rig.worker()
    rig.engine.stop_claiming()
    assert drained(rig).called
