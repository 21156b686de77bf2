"""Admission: how many of a tenant may wait, how fast they may come, how many may be on their way to the disk. B66."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from twisted.internet.defer import succeed

from jobsvc.engine import quotas as rules
from jobsvc.engine.engine import EngineConfig
from jobsvc.engine.rates import LONG_S
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Job, Submit
from jobsvc.store.memory import InlineStore
from tests.contract.store_harness import job_of
from tests.engine.fakes import PumpedStore, Rig, at_once, result_of


@pytest.fixture
def small() -> Iterator[Rig]:
    """Five jobs may wait."""
    made = Rig(config=EngineConfig(queue_max=5))
    yield made
    made.close()


def refused(rig: Rig, count: int = 1, tenant: str = "default", task: str = "quick") -> JobsvcError:
    """A submit of so many that must not be taken."""
    before = stored(rig)
    with pytest.raises(JobsvcError) as refusal:
        rig.engine.submit(jobs(rig, count, tenant, task))
    assert stored(rig) == before
    return refusal.value


def jobs(rig: Rig, count: int, tenant: str = "default", task: str = "quick") -> list[Job]:
    return [rig.engine.prepare(Submit(task=task), tenant) for _ in range(count)]


def stored(rig: Rig) -> dict[str, int]:
    depths: Mapping[str, int] = result_of(rig.store.depths())
    return dict(depths)


def test_a_full_queue_takes_nothing(small: Rig) -> None:
    """429's code, when to come again, and nothing stored; the other tenant's queue is its own."""
    small.submit_many("quick", 5)
    error = refused(small)
    assert (error.code, error.context["retry_after_s"]) == ("queue_full", 300.0)  # nothing drains it
    assert "--queue-max" in error.detail
    result_of(small.engine.submit(jobs(small, 5, "other")))
    assert refused(small, tenant="other").code == "queue_full"


def test_all_or_nothing(small: Rig) -> None:
    """Of one call all are taken or none; what can never fit is told so."""
    small.submit_many("quick", 3)
    assert refused(small, 3).code == "queue_full"
    assert small.engine.quotas.room("default", 3)[0] == 2
    assert refused(small, 6).code == "too_large"
    small.submit_many("quick", 2)


def test_what_starts_at_once_does_not_wait(small: Rig) -> None:
    """Jobs for which a slot is free are not counted: the limit is on what waits."""
    small.worker("io")
    running = [small.submit("thumbnail") for _ in range(4)]
    small.submit_many("thumbnail", 5)
    assert refused(small, task="thumbnail").code == "queue_full"
    small.workers[0].succeed(running[0])
    small.submit("thumbnail")


def test_scheduled_and_retrying_jobs_wait_too(small: Rig) -> None:
    worker = small.worker()
    job = small.submit("flaky")
    worker.begin(job)
    worker.fail(job)
    assert small.engine.quotas.waiting["default"] == 1
    small.submit_many("quick", 4, delay_s=60)
    assert refused(small).code == "queue_full"
    result_of(small.cancel(job))
    small.submit("quick", delay_s=60)


def test_retry_after_is_what_the_queue_takes_to_drain(small: Rig) -> None:
    """By the pace at which jobs of the tenant got their turn lately."""
    worker = small.worker()
    sent = [small.submit("once"), *small.submit_many("once", 5)]
    for _ in range(5):
        small.clock.advance(4)
        worker.succeed(next(job for job in sent if worker.has(job)), run_s=4)
        sent.append(small.submit("once"))
    waits_s = refused(small, 2).context["retry_after_s"]
    assert 2 <= waits_s <= 16
    small.clock.advance(3600)
    assert refused(small).context["retry_after_s"] == 300.0


def test_no_limit(rig: Rig) -> None:
    """0 takes it away; the default is beyond what a test can fill."""
    assert rig.engine.config.queue_max == 1_000_000
    free = Rig(config=EngineConfig(queue_max=0))
    free.submit_many("quick", 50)
    assert free.engine.quotas.room("default", 10**9) == (10**9, None)
    free.close()


def test_a_rate_of_submits() -> None:
    """So many at once, then as they flow in; the wait is exact."""
    rig = Rig(config=EngineConfig(submit_rate=2.0))
    rig.submit_many("quick", 20)
    error = refused(rig, 4)
    assert (error.code, error.context["retry_after_s"]) == ("rate_limited", 2.0)
    rig.clock.advance(1)
    assert rig.engine.quotas.room("default", 4)[0] == 2
    rig.submit_many("quick", 2)
    assert refused(rig).context["retry_after_s"] == 1.0  # half a second, and no sooner than one
    assert refused(rig, 21).code == "too_large"
    result_of(rig.engine.submit(jobs(rig, 1, "other")))
    rig.close()


def test_a_rate_below_one_takes_one() -> None:
    rig = Rig(config=EngineConfig(submit_rate=0.01))
    rig.submit("quick")
    assert refused(rig).context["retry_after_s"] == 100.0
    rig.close()


def test_too_many_on_their_way_to_the_disk(
    slow: tuple[Rig, PumpedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """503's code while they are, whoever sends; cancels and reads are taken all the same."""
    monkeypatch.setattr(rules, "SUBMITS_IN_FLIGHT_MAX", 10)
    rig, store = at_once(slow)
    job = rig.submit("quick")
    store.held = True
    rig.engine.submit(jobs(rig, 5))
    assert rig.engine.quotas.crowded
    rig.engine.submit(jobs(rig, 5, "other"))
    with pytest.raises(JobsvcError) as refusal:
        rig.engine.submit(jobs(rig, 1))
    assert (refusal.value.code, refusal.value.context["retry_after_s"]) == ("overloaded", 1.0)
    assert rig.get(job).state == "queued"
    cancelled = rig.cancel(job)
    store.settle_down()
    assert result_of(cancelled)[1] is True
    assert not rig.engine.quotas.crowded
    rig.engine.submit(jobs(rig, 1))


def test_what_comes_alone_is_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload larger than the limit is no reason to refuse it for ever."""
    monkeypatch.setattr(rules, "SUBMITS_IN_FLIGHT_MAX", 10)
    rig.submit_many("quick", 11)


def test_a_full_disk_gives_the_room_back(slow: tuple[Rig, PumpedStore]) -> None:
    """What was not stored does not count."""
    rig, store = slow
    failed = rig.engine.submit(jobs(rig, 3))
    store.fail_next()
    store.pump()
    with pytest.raises(JobsvcError):
        result_of(failed)
    assert rig.engine.quotas.room("default", 10**6) == (10**6, None)
    assert not rig.engine.quotas.crowded


def test_replays_and_reused_keys_do_not_count(rig: Rig) -> None:
    """One job, one place, however often it is sent."""
    rig.submit("quick", key="k")
    for args in (None, {"n": 3}):
        result_of(rig.engine.submit([rig.job("quick", args, key="k")]))
    assert rig.engine.quotas.waiting == {"default": 1}


def test_the_start_counts_what_waits() -> None:
    """A new daemon on an old store: the queue is as full as it was."""
    store = InlineStore()
    result_of(store.open())
    waiting = [job_of(tenant="a"), job_of(tenant="a", state="scheduled", due_at=1 << 60), job_of(tenant="b")]
    result_of(store.submit(waiting))
    store.open = lambda: succeed(None)  # type: ignore[method-assign]  # it is open
    rig = Rig(store, config=EngineConfig(queue_max=2))
    assert rig.engine.quotas.waiting == {"a": 2, "b": 1}
    assert refused(rig, tenant="a").code == "queue_full"
    result_of(rig.engine.submit(jobs(rig, 1, "b")))
    rig.close()


def test_limits_are_told_from_half_on(small: Rig) -> None:
    """Before that nobody needs to know; `reset_s` by the measured pace, unknown while there is none."""
    small.submit_many("quick", 2)
    assert small.engine.quotas.limits("default") == []
    small.submit("quick")
    assert small.engine.quotas.limits("default") == [rules.Limit("queue", 5, 2, None, None)]
    assert small.engine.quotas.limits("nobody") == []
    rated = Rig(config=EngineConfig(queue_max=0, submit_rate=1.0))
    rated.submit_many("quick", 4)
    assert rated.engine.quotas.limits("default") == []
    rated.submit_many("quick", 3)
    assert rated.engine.quotas.limits("default") == [rules.Limit("submit", 10, 3, 10, 7.0)]
    rated.close()


def test_tenants_that_went_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come and go, those are remembered of whom something waits or has just moved, and a few more."""
    monkeypatch.setattr(rules, "TENANTS_IDLE_MAX", 10)
    rig = Rig(config=EngineConfig(queue_max=5, submit_rate=1.0))
    quotas = rig.engine.quotas
    tables = (quotas.waiting, quotas._coming, quotas._left, quotas._buckets)
    quotas.answered(quotas.sent(stays := jobs(rig, 5, "stays")), stays)
    for number in range(200):
        came = jobs(rig, 1, f"tenant-{number}")
        quotas.answered(quotas.sent(came), came)
        assert quotas.room(came[0].tenant, 5)[0] == 4
        quotas.gone(came)
        rig.clock.advance(LONG_S / 5)
        assert all(len(table) <= 11 for table in tables)
    assert quotas.waiting["stays"] == 5
    assert refused(rig, tenant="stays").code == "queue_full"
    rig.close()


def test_a_tenant_that_is_busy_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has used of its rate is not given back by the coming of others."""
    monkeypatch.setattr(rules, "TENANTS_IDLE_MAX", 1)
    rig = Rig(config=EngineConfig(submit_rate=1.0))
    rig.submit_many("quick", 10)
    for number in range(5):
        result_of(rig.engine.submit(jobs(rig, 1, f"tenant-{number}")))
    assert refused(rig).code == "rate_limited"
    rig.close()
