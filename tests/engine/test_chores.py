"""What the clock makes the engine do: due jobs, late jobs, old jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobsvc.engine.chores import BATCH, LOOK_S, PURGE_EVERY_S
from jobsvc.engine.engine import EngineConfig
from jobsvc.model.clock import time_text
from tests.engine.fakes import PumpedStore, Rig, error_of, result_of

if TYPE_CHECKING:
    from tests.conftest import FlushFailures

Slow = tuple[Rig, PumpedStore]


def at(rig: Rig, after_s: float) -> str:
    return time_text(rig.now_us() + int(after_s * 1_000_000))


def test_a_scheduled_job_runs_at_its_time(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail", delay_s=90)
    other = rig.submit("thumbnail", run_at=at(rig, 100))
    assert (rig.state(job), rig.get(job).run_at) == (("scheduled", "run_at"), rig.now_us() + 90_000_000)
    rig.clock.pump([29.9] * 3)
    assert worker.handed == {}
    rig.clock.advance(0.3)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(9.7)
    assert rig.state(other)[0] == "scheduled"
    rig.clock.advance(0.3)
    assert rig.state(other)[0] == "running"
    assert rig.states(job) == ["queued", "running"]


def test_an_earlier_one_wakes_the_clock_earlier(rig: Rig) -> None:
    worker = rig.worker("io")
    rig.submit("thumbnail", delay_s=20)
    rig.submit("thumbnail", delay_s=5)
    rig.clock.advance(5)
    assert len(worker.handed) == 1
    rig.clock.advance(15)
    assert len(worker.handed) == 2


def test_a_time_in_the_past_is_now(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail", run_at=at(rig, -60))
    assert rig.state(job)[0] == "running"
    assert worker.handed


def test_more_due_jobs_than_one_transaction_takes(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 5_000})
    jobs = rig.submit_many("thumbnail", BATCH + 10, delay_s=1)
    rig.clock.advance(1)
    assert len(worker.handed) == len(jobs)


def test_a_job_that_still_waits_at_its_end_expires(rig: Rig) -> None:
    queued = rig.submit("thumbnail", expires_at=at(rig, 10))
    scheduled = rig.submit("thumbnail", delay_s=5, expires_at=at(rig, 40))
    waiting = rig.engine.wait(queued.id, "default", 60)
    rig.clock.advance(9.9)
    assert not waiting.called
    rig.clock.advance(0.2)
    assert result_of(waiting).state == "expired"
    assert rig.error(queued).kind == "expired"
    worker = rig.worker("io")
    assert next(iter(worker.handed.values())).id == scheduled.id
    rig.clock.advance(60)
    assert rig.state(scheduled)[0] == "running"  # what runs does not expire
    assert rig.states(queued) == ["expired"]


def test_old_jobs_are_purged() -> None:
    rig = Rig(config=EngineConfig(keep_s=300.0))
    worker = rig.worker("io")
    job, running = rig.submit("thumbnail"), rig.submit("thumbnail")
    worker.succeed(job)
    rig.clock.pump([PURGE_EVERY_S] * 5)
    assert rig.state(job)[0] == "succeeded"
    rig.clock.advance(PURGE_EVERY_S)
    assert error_of(rig.engine.get(job.id, "default")).code == "purged"
    assert rig.state(running)[0] == "running"
    rig.close()
    assert rig.clock.getDelayedCalls() == []


def test_a_full_disk_does_not_stop_the_clock(slow: Slow, flush_failures: FlushFailures) -> None:
    rig, store = slow
    answer = rig.engine.submit([rig.job("thumbnail", delay_s=1)])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    rig.clock.advance(1)
    assert store.kinds == ["wake"]
    store.fail_next()
    store.pump()
    assert len(flush_failures()) == 1
    rig.clock.advance(LOOK_S)
    store.settle_down()
    assert rig.state(submitted.job)[0] == "queued"


def test_a_full_disk_does_not_stop_retention(slow: Slow, flush_failures: FlushFailures) -> None:
    rig, store = slow
    rig.clock.advance(PURGE_EVERY_S)
    assert "purge" in store.kinds
    store.fail_next()
    store.pump()
    assert flush_failures()
    store.settle_down()
    rig.clock.advance(PURGE_EVERY_S)
    assert "purge" in store.kinds
