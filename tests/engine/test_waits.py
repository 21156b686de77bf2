"""Looking at jobs, waiting for them, following many; and keys, by which a submit may be sent twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from jobsvc.engine import asks
from jobsvc.engine.asks import WAKE_AT_ONCE
from jobsvc.model.errors import JobsvcError
from jobsvc.model.frames import Result
from jobsvc.model.job import Job
from jobsvc.model.limits import KEEP_S
from jobsvc.ports import JobFilter
from tests.engine.fakes import PumpedStore, Rig, error_of, result_of

Slow = tuple[Rig, PumpedStore]


# -- one -------------------------------------------------------------------------------------------------------------


def test_every_waiter_is_told(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    waiting = [rig.engine.wait(job.id, "default", 60) for _ in range(3)]
    worker.succeed(job, b"1")
    assert [result_of(each).result for each in waiting] == [b"1"] * 3


def test_a_waiter_may_leave_and_the_others_stay(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    leaving, staying = (rig.engine.wait(job.id, "default", 60) for _ in range(2))
    leaving.addErrback(lambda failure: failure.trap(CancelledError) and None)
    leaving.cancel()
    worker.succeed(job)
    assert result_of(staying).state == "succeeded"
    assert rig.engine.bus._interests == {}


def test_at_the_end_of_the_wait_the_job_is_given_as_it_is(rig: Rig) -> None:
    rig.worker("io")
    job = rig.submit("thumbnail")
    waiting = rig.engine.wait(job.id, "default", 5, fresh=job)
    rig.clock.advance(4.9)
    assert not waiting.called
    rig.clock.advance(0.1)
    assert result_of(waiting).state == "running"
    assert rig.engine.bus._interests == {}


def test_a_wait_for_what_is_done_or_unknown_is_over_at_once(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.succeed(job)
    assert result_of(rig.engine.wait(job.id, "default", 60)).done
    assert error_of(rig.engine.wait(bytes(16), "default", 60)).code == "not_found"
    assert error_of(rig.engine.wait(job.id, "other", 60)).code == "not_found"
    assert rig.engine.bus._interests == {}


def test_a_wait_for_the_next_revision_is_woken_by_each_change(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    first, job = rig.submit("thumbnail"), rig.submit("thumbnail", retries=1)
    seen = [(job.revision, job.state)]
    for act in (
        lambda: worker.succeed(first),
        lambda: worker.progress(job, 1, 2),
        lambda: rig.cancel(job),
        lambda: worker.fail(job, "cancelled"),
    ):
        waiting = rig.engine.wait(job.id, "default", 60, revision=seen[-1][0])
        assert not waiting.called
        act()
        changed = result_of(waiting)
        seen.append((changed.revision, changed.state))
    assert seen == [(1, "queued"), (2, "running"), (3, "running"), (4, "stopping"), (5, "cancelled")]


def test_a_revision_is_shown_only_with_what_it_stands_for(slow: Slow) -> None:
    """Else a client that has seen it with the old state would not be told of the new one."""
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1)
    store.held = True
    for act in (lambda: worker.progress(job, 1, 2), lambda: rig.cancel(job), lambda: worker.fail(job)):
        before = rig.get(job)
        shown = (before.revision, before.state, before.progress)
        act()
        now = rig.get(job)
        assert (now.revision, now.state, now.progress) == shown
        waiting = rig.engine.wait(job.id, "default", 60, revision=shown[0])
        store.settle_down()
        changed = result_of(waiting)
        assert changed.revision == shown[0] + 1


def test_items_and_logs_make_no_revision(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    waiting = rig.engine.wait(job.id, "default", 60, revision=2)
    worker.items(job, 1)
    worker.log(job, "x")
    assert not waiting.called
    worker.succeed(job)
    assert result_of(waiting).revision == 3


def test_started_at_is_known_as_soon_as_the_code_runs(rig: Rig) -> None:
    """By its message, or by the mark of a quick one."""
    io, cpu = rig.worker("io"), rig.worker("cpu")
    rig.timed(cpu, "quick", 0.0001)
    told, marked = rig.submit("thumbnail"), rig.submit("quick")
    rig.clock.advance(1)
    assert (rig.get(told).started_at, rig.get(marked).started_at) == (None, None)
    io.begin(told)
    cpu.begin(marked, frame=False)
    assert rig.get(told).started_at == rig.get(marked).started_at == rig.now_us()


def test_an_old_id_is_purged_and_an_unknown_one_not_found(rig: Rig) -> None:
    made = rig.job("thumbnail").id
    assert error_of(rig.engine.get(made, "default")).code == "not_found"
    rig.clock.advance(KEEP_S + 1)
    assert error_of(rig.engine.get(made, "default")).code == "purged"
    assert error_of(rig.engine.get(bytes(16), "default")).code == "not_found"


# -- many ------------------------------------------------------------------------------------------------------------


def many(
    rig: Rig, ids: Sequence[bytes], until: str, wait_s: float = 60, tenant: str = "default"
) -> Deferred[dict[bytes, Job]]:
    """What is served to who waits for these."""
    return rig.engine.wait_many(ids, tenant, wait_s, until, lambda: rig.engine.get_many(ids, tenant))


def leave_waiting(waiting: Deferred[dict[bytes, Job]]) -> None:
    waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting.cancel()


def test_many_until_all_or_any_is_done(rig: Rig) -> None:
    worker = rig.worker("io")
    jobs = rig.submit_many("thumbnail", 3)
    ids = [job.id for job in jobs]
    everyone = many(rig, [*ids, bytes(16)], "all")
    anyone = many(rig, ids, "any")
    worker.succeed(jobs[1])
    assert [job.done for job in result_of(anyone).values()] == [False, True, False]
    worker.succeed(jobs[0])
    assert not everyone.called
    assert result_of(many(rig, ids, "any"))[ids[0]].done  # some are done before it is asked
    worker.succeed(jobs[2])
    found = result_of(everyone)
    assert list(found) == ids  # what is not there is missing
    assert all(job.done for job in found.values())
    assert result_of(many(rig, ids, "all")) == found
    assert rig.engine.bus.follows == {}


def test_who_waits_for_the_same_is_answered_by_one_look(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read when the wait is over, once for all, and handed out in slices; who leaves is not waited for."""
    reads: list[str] = []

    def counted(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            reads.append(name)
            return read(*args)

        return call

    for name in ("done", "get_many"):
        monkeypatch.setattr(rig.store, name, counted(name, getattr(rig.store, name)))
    worker = rig.worker("io", {"thread": 2})
    jobs = rig.submit_many("thumbnail", 5)
    ids = [job.id for job in jobs]
    waiting = [many(rig, ids, "all") for _ in range(WAKE_AT_ONCE + 3)]
    leave_waiting(many(rig, [ids[0], bytes(16)], "all"))
    leave_waiting(waiting.pop())
    for job in jobs:
        assert reads == ["done", "done"]
        assert not any(each.called for each in waiting)
        worker.succeed(job)
    assert sum(each.called for each in waiting) == WAKE_AT_ONCE
    rig.clock.advance(0)
    [first, *others] = [result_of(each) for each in waiting]
    assert all(job.done for job in first.values())
    assert all(other is first for other in others)
    assert reads == ["done", "done", "get_many"]
    assert rig.engine.bus.follows == {}


def test_what_ends_while_it_is_looked_is_not_missed(slow: Slow) -> None:
    """Whether the look at the store is from before or after that."""
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    jobs = rig.submit_many("thumbnail", 3)
    ids = [job.id for job in jobs]
    worker.succeed(jobs[0])
    store.hold_reads = True
    everyone, anyone = many(rig, ids, "all"), many(rig, ids[1:], "any")
    worker.succeed(jobs[1])
    worker.succeed(jobs[2])
    assert not everyone.called
    while not (everyone.called and anyone.called):
        store.pump_reads()
    assert [job.done for job in (*result_of(everyone).values(), *result_of(anyone).values())] == [True] * 5
    assert rig.engine.bus.follows == {}


def test_a_look_that_fails_fails_all_who_wait_for_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is looked for anew."""
    jobs = rig.submit_many("thumbnail", 2)
    ids = [job.id for job in jobs]
    with monkeypatch.context() as patch:
        held: Deferred[dict[bytes, bool]] = Deferred()
        patch.setattr(rig.store, "done", lambda *_: held)
        waiting = [many(rig, ids, "all") for _ in range(2)]
        held.errback(JobsvcError("overloaded", "too many reads"))
    assert [error_of(each).code for each in waiting] == ["overloaded"] * 2
    assert rig.engine.bus.follows == {}
    waits_anew = many(rig, ids, "all", 5)
    rig.clock.advance(5)
    assert len(result_of(waits_anew)) == 2


def test_waits_of_one_tenant_have_a_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ids they name; equal ones count once, other tenants' do not count, what is over is free again."""
    monkeypatch.setattr(asks, "ASKED_IDS_MAX", 5)
    worker = rig.worker("io")
    jobs = rig.submit_many("thumbnail", 4)
    ids = [job.id for job in jobs]
    waiting = [many(rig, ids[:3], "all") for _ in range(3)]
    refusal = error_of(many(rig, ids[1:], "all"))
    assert (refusal.code, refusal.context["retry_after_s"]) == ("rate_limited", asks.FULL_RETRY_S)
    assert "'default'" in refusal.detail
    assert len(result_of(many(rig, ids, "all", 0))) == 4  # without a wait nothing is held
    leave_waiting(many(rig, ids[2:], "all"))
    assert result_of(many(rig, ids, "all", tenant="other")) == {}
    for job in jobs[:3]:
        worker.succeed(job)
    assert [each.called for each in waiting] == [True] * 3
    leave_waiting(many(rig, ids[1:], "all"))
    assert rig.engine._asks._asked_ids == {}


def test_many_end_with_the_time_and_leave_nothing(rig: Rig) -> None:
    rig.worker("io")
    jobs = rig.submit_many("thumbnail", 2)
    ids = [job.id for job in jobs]
    waiting, longer = many(rig, ids, "all", 5), many(rig, ids, "all", 6)
    rig.clock.advance(5)
    assert [job.state for job in result_of(waiting).values()] == ["running"] * 2
    assert not longer.called
    assert result_of(many(rig, [bytes(16)], "all")) == {}
    assert result_of(many(rig, ids, "all", tenant="other")) == {}
    assert len(result_of(many(rig, ids, "all", 0))) == 2
    leave_waiting(many(rig, ids, "any"))
    rig.clock.advance(1)
    assert len(result_of(longer)) == 2
    assert rig.engine.bus.follows == {}


def test_a_follower_gets_jobs_in_the_order_in_which_they_end(rig: Rig) -> None:
    worker = rig.worker("io")
    jobs = rig.submit_many("thumbnail", 3)
    seen: list[bytes] = []

    def sink(ended: Sequence[Job]) -> None:
        assert all(job.done for job in ended)
        seen.extend(job.id for job in ended)

    follower = rig.engine.follow(jobs, sink)
    for place in (2, 0, 1):
        worker.succeed(jobs[place])
    assert seen == [jobs[2].id, jobs[0].id, jobs[1].id]
    assert follower.left == set()
    assert rig.engine.bus.follows == {}


def test_a_follower_gets_what_ended_together_in_one_batch(slow: Slow) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    jobs = rig.submit_many("thumbnail", 3)
    batches: list[int] = []
    rig.engine.follow(jobs, lambda ended: batches.append(len(ended)))
    store.held = True
    starts = [worker.start_of(job) for job in jobs]
    worker.say(*(Result(start.no, start.epoch, rig.now_us(), 0.01, None, 0, b"null") for start in starts))
    store.settle_down()
    assert batches == [3]


def test_a_job_followed_twice_is_told_once(rig: Rig) -> None:
    """Two lines of one upload with the same key are one job."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    seen: list[Job] = []
    rig.engine.follow([job, job], seen.extend)
    left = rig.engine.follow([job, job], seen.extend)
    left.close()
    worker.succeed(job)
    assert len(seen) == 1
    assert rig.engine.bus.follows == {}


def test_a_follower_of_replayed_jobs_gets_those_that_have_ended(rig: Rig) -> None:
    worker = rig.worker("io")
    ended, running = rig.submit_many("thumbnail", 2)
    worker.succeed(ended)
    seen: list[bytes] = []
    rig.engine.follow([ended, running], lambda jobs: seen.extend(job.id for job in jobs), replayed=True)
    assert seen == [ended.id]
    worker.succeed(running)
    assert seen == [ended.id, running.id]


def test_a_list_knows_which_tasks_are_gone(rig: Rig) -> None:
    job = rig.submit("thumbnail")
    rig.reload({name: spec for name, spec in rig.engine.tasks.items() if name != "thumbnail"})
    [row] = result_of(rig.engine.list(JobFilter())).jobs
    assert (row.id, row.state, row.reason) == (job.id, "queued", "no_such_task")
    [found] = result_of(rig.engine.get_many([job.id], "default")).values()
    assert found.reason == "no_such_task"


# -- keys ------------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_job(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 4})
    job = rig.submit("thumbnail", {"path": "a", "width": 1}, key="k")
    [again] = result_of(rig.engine.submit([rig.job("thumbnail", {"width": 1, "path": "a"}, header="k")]))
    assert again.replayed
    assert again.job is not None
    assert again.job.id == job.id
    assert len(worker.handed) == 1
    assert rig.engine.board.running["thumbnail"] == 1
    worker.succeed(job, b"1")
    [after] = result_of(rig.engine.submit([rig.job("thumbnail", {"path": "a", "width": 1}, key="k")]))
    assert after.job is not None
    assert (after.job.state, after.job.result) == ("succeeded", b"1")
    assert rig.engine.counters[("submitted",)] == 1


def test_the_same_key_with_another_body_is_refused(rig: Rig) -> None:
    worker = rig.worker("io")
    rig.submit("thumbnail", {"path": "a"}, key="k")
    for other in (
        rig.job("thumbnail", {"path": "b"}, key="k"),
        rig.job("thumbnail", {"path": "a"}, key="k", priority=1),
    ):
        [answer] = result_of(rig.engine.submit([other]))
        assert answer.job is None
    assert len(worker.handed) == 1
    assert rig.engine.board.running["thumbnail"] == 1


def test_a_key_belongs_to_its_tenant(rig: Rig) -> None:
    first = rig.submit("thumbnail", key="k")
    second = rig.job("thumbnail", key="k")
    second.tenant = "other"
    [answer] = result_of(rig.engine.submit([second]))
    assert answer.job is not None
    assert answer.job.id != first.id
