"""Timeouts: enforced from outside the job, on every executor as truthfully as it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobsvc.model.errors import JobsvcError
from jobsvc.model.frames import Cancel
from jobsvc.model.job import Job
from jobsvc.ports import Death
from tests.engine.fakes import FakeWorker, PumpedStore, Rig, error_of, result_of

if TYPE_CHECKING:
    from tests.conftest import FlushFailures

Slow = tuple[Rig, PumpedStore]
KILLED = "killed"


def killed(worker: FakeWorker) -> None:
    worker.die(Death(KILLED, None))  # type: ignore[arg-type]


# -- process ---------------------------------------------------------------------------------------------------------


def test_the_run_timeout_counts_from_begin_asks_and_then_kills(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    rig.clock.advance(30)  # waiting in the worker is not running
    start = worker.begin(job)
    rig.clock.advance(4.9)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(0.1)
    assert rig.state(job) == ("stopping", "timeout")
    assert worker.cancels == [((start.no, start.epoch), "timeout")]
    assert worker.killed == []
    rig.clock.advance(1)
    assert worker.killed == [(start.no, start.epoch)]
    assert rig.state(job) == ("stopping", "timeout")  # not before it has been seen to stop
    killed(worker)
    assert rig.state(job) == ("retrying", "retry")
    second = rig.worker()
    rig.clock.advance(1)
    second.begin(job)
    rig.clock.advance(5)
    second.fail(job, "cancelled")  # this time it listened
    assert rig.state(job)[0] == "failed"
    assert (rig.error(job).kind, rig.error(job).message) == ("timeout", "run timeout of 5 s")
    assert rig.states(job) == ["running", "stopping", "retrying", "queued", "running", "stopping", "failed"]


def test_the_idle_timeout_counts_from_the_last_sign_of_life(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": None}, retries=0)
    worker.begin(job)
    for sign in (
        lambda: worker.items(job, 1),
        lambda: worker.log(job, "still here"),
        lambda: worker.progress(job, 1, 3),
    ):
        rig.clock.advance(1.5)
        sign()
        assert rig.state(job)[0] == "running"
    rig.clock.advance(1.9)
    assert rig.state(job)[0] == "running"
    rig.clock.advance(0.2)
    assert rig.state(job) == ("stopping", "timeout")
    worker.fail(job, "timeout")
    assert rig.error(job).message == "idle timeout of 2 s"


def test_signs_of_life_leave_no_timers_behind(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": None})
    worker.begin(job)
    for _ in range(50):
        rig.clock.advance(1.5)
        worker.items(job, 1)
    assert len(rig.engine.board.active[job.id].timers or ()) <= 2


def test_the_total_timeout_counts_from_the_submission_and_is_final(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("bounded", backoff={"base_s": 4, "max_s": 4})
    worker.begin(job)
    rig.clock.advance(3)
    worker.fail(job)
    assert rig.state(job)[0] == "retrying"
    rig.clock.advance(4.5)
    worker.begin(job)
    rig.clock.advance(2.4)
    assert rig.state(job)[0] == "running"
    rig.clock.advance(0.2)
    assert rig.state(job) == ("stopping", "timeout")
    rig.clock.advance(1)
    killed(worker)
    assert rig.state(job)[0] == "failed"  # though two tries are left
    assert rig.error(job).message == "total timeout of 10 s"


def test_the_total_timeout_reaches_what_has_not_begun(rig: Rig) -> None:
    """It waits in its worker behind another one: that one is not killed for it."""
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    first = rig.submit("quick")
    second = rig.submit("quick", timeouts={"total": 0.05})
    worker.begin(first, frame=False)
    start = worker.start_of(second)
    rig.clock.advance(0.06)
    assert rig.state(second) == ("stopping", "timeout")
    rig.clock.advance(2)
    assert worker.killed == []
    assert worker.cancels == [((start.no, start.epoch), "timeout")]
    worker.give_back(second)
    assert (rig.state(second)[0], rig.error(second).kind) == ("failed", "timeout")
    assert rig.state(first)[0] == "running"


def test_an_attempt_that_ends_in_time_leaves_no_timer(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"total": 60})
    worker.begin(job)
    worker.succeed(job)
    rig.clock.advance(60)
    assert rig.states(job) == ["running", "succeeded"]
    assert worker.cancels == []


def test_a_result_that_comes_while_it_is_stopping_counts(rig: Rig) -> None:
    """It returned before it was stopped, so the effect happened."""
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    worker.begin(job)
    rig.clock.advance(5.5)
    worker.succeed(job, b"7")
    assert (rig.state(job), rig.get(job).result) == (("succeeded", None), b"7")
    rig.clock.advance(5)
    assert worker.killed == []


# -- thread ----------------------------------------------------------------------------------------------------------


def test_a_thread_past_its_timeout_is_given_up_at_once_and_keeps_its_slot(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn", retries=0)
    start = worker.begin(job)
    rig.clock.advance(5)
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "timeout")
    assert worker.cancels == [((start.no, start.epoch), "timeout")]
    seat = rig.engine.board.seats[worker.id]
    assert seat.used["thread"] == 1
    worker.succeed(job)  # the thread returns at last
    assert seat.used["thread"] == 0
    assert rig.engine.counters["refused", "result"] == 1
    assert rig.get(job).result is None
    assert rig.free()


def test_a_retry_waits_for_the_given_up_thread_to_return(rig: Rig) -> None:
    """Two attempts of one job never overlap, whoever asks for it."""
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn")
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("retrying", "orphan_running")
    rig.clock.advance(3600)
    assert rig.state(job) == ("retrying", "orphan_running")
    refused = rig.engine.run_now(job.id, "default")
    refused.addCallbacks(lambda _: "ran", lambda failure: failure.value.code)
    assert result_of(refused) == "conflict"  # type: ignore[comparison-overlap]
    assert len(worker.handed) == 1
    moved = rig.engine.wait(job.id, "default", 60, revision=rig.get(job).revision)
    worker.fail(job)
    assert result_of(moved).state in {"queued", "running"}
    assert rig.state(job) == ("running", None)
    assert worker.start_of(job).epoch == 2
    assert rig.states(job) == ["running", "retrying", "queued", "running"]


def given_up(rig: Rig) -> tuple[FakeWorker, Job]:
    """A job whose thread was given up at its timeout and still runs; it has another try."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", timeouts={"run": 5}, retries=1)
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("retrying", "orphan_running")
    return worker, job


@pytest.mark.parametrize("mode", ["deadline", "now"])
def test_a_kill_of_what_waits_for_its_given_up_thread_is_refused(rig: Rig, mode: str) -> None:
    """The thread still runs and cannot be killed: nothing changes."""
    _, job = given_up(rig)
    before = rig.get(job)
    assert error_of(rig.cancel(job, mode)).code == "cannot_kill"
    assert rig.get(job) == before


def test_a_cancel_of_what_waits_for_its_given_up_thread_is_recorded_when_that_has_returned(rig: Rig) -> None:
    """`cancelled` only once the code has been seen to stop; that it was asked is on the disk before the answer."""
    worker, job = given_up(rig)
    shown, was_waiting = result_of(rig.cancel(job))
    assert (shown.state, shown.reason, was_waiting) == ("retrying", "cancel_asked", False)
    assert rig.state(job) == ("retrying", "cancel_asked")
    assert result_of(rig.cancel(job))[0].revision == shown.revision, "asked already"
    rig.clock.advance(3600)
    assert error_of(rig.engine.run_now(job.id, "default")).code == "conflict"
    worker.fail(job, "cancelled")
    assert rig.state(job) == ("cancelled", "cancel_asked")
    assert rig.error(job).kind == "cancelled"
    assert rig.get(job).epoch == 1


def test_run_now_does_not_overtake_a_thread_that_is_being_given_up(slow: Slow) -> None:
    """Asked before it is on the disk that the job waits for its thread: two attempts of one job never overlap."""
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    job = rig.submit("thumbnail", timeouts={"run": 5}, retries=1)
    worker.begin(job)
    store.held = True
    rig.clock.advance(5)
    asked = rig.engine.run_now(job.id, "default")
    store.settle_down()
    assert error_of(asked).code == "conflict"
    assert rig.state(job) == ("retrying", "orphan_running")
    assert rig.get(job).epoch == 1


def test_a_retry_goes_on_when_the_worker_of_the_given_up_thread_is_dead(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn")
    worker.begin(job)
    rig.clock.advance(5)
    other = rig.worker("io", {"thread": 8})
    assert other.handed == {}
    worker.lose()
    assert other.start_of(job).attempt == 2


def test_a_worker_with_too_many_given_up_threads_is_worn(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 8})
    jobs = [rig.submit("stubborn", retries=0) for _ in range(2)]
    for job in jobs:
        worker.begin(job)
    rig.clock.advance(5)
    assert rig.worn == [worker]


def test_a_retiring_worker_with_only_given_up_threads_may_go(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 8})
    stubborn, other = rig.submit("stubborn", retries=0), rig.submit("thumbnail")
    worker.begin(stubborn)
    rig.clock.advance(5)
    rig.engine.worker_retiring(worker)
    assert worker.quits == 0
    worker.succeed(other)
    assert worker.quits == 1


def test_a_thread_that_has_not_begun_is_asked_back(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("stubborn", timeouts={"total": 1}, retries=0)
    rig.clock.advance(1)
    assert rig.state(job) == ("stopping", "timeout")
    worker.give_back(job)
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "timeout")
    assert rig.free()


# -- loop ------------------------------------------------------------------------------------------------------------


def test_a_coroutine_past_its_timeout_is_asked_at_its_next_await(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("spin")
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("stopping", "timeout")
    worker.fail(job, "cancelled")
    assert rig.error(job).kind == "timeout"


def test_a_coroutine_that_does_not_stop_has_its_worker_replaced(rig: Rig) -> None:
    """It goes on until that worker ends, which it may once nothing else runs on it."""
    worker = rig.worker("io")
    job, other = rig.submit("spin"), rig.submit("thumbnail")
    worker.begin(job)
    worker.begin(other)
    rig.clock.advance(5)
    rig.clock.advance(1)
    assert rig.worn == [worker]
    assert rig.state(job) == ("stopping", "timeout")
    rig.engine.worker_retiring(worker)
    assert worker.quits == 0
    worker.succeed(other)
    assert worker.quits == 1
    worker.die(Death("quit", None))
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "timeout")
    assert rig.free()


# -- a cancel takes no timeout away ----------------------------------------------------------------------------------


def test_a_polite_cancel_that_is_not_heard_is_followed_by_the_timeout(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    start = worker.begin(job)
    result_of(rig.cancel(job))
    rig.clock.advance(5)
    rig.clock.advance(1)
    assert worker.killed == [(start.no, start.epoch)]
    killed(worker)
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_a_thread_that_does_not_hear_a_cancel_is_given_up_at_its_timeout(rig: Rig) -> None:
    """It has not been seen to stop, so it is not `cancelled`; and it is not tried again."""
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn")
    worker.begin(job)
    result_of(rig.cancel(job))
    rig.clock.advance(5)
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "timeout")
    assert rig.states(job) == ["running", "stopping", "failed"]


def test_a_thread_is_given_up_only_when_the_cancel_before_is_on_the_disk(slow: Slow) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn", retries=0)
    worker.begin(job)
    store.held = True
    rig.clock.advance(4.9)
    rig.cancel(job)
    rig.clock.advance(0.1)
    assert store.kinds == ["step"]
    store.settle_down()
    rig.clock.advance(0.25)
    store.settle_down()
    assert rig.states(job) == ["running", "stopping", "failed"]
    assert [event.seq for event in rig.read(job)] == [1, 2, 3, 4]


def test_a_timeout_that_finds_the_disk_full_is_made_again(slow: Slow, flush_failures: FlushFailures) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None}, retries=0)
    worker.begin(job)
    store.held = True
    rig.clock.advance(5)
    store.fail_next()
    store.pump()
    assert len(flush_failures()) == 1
    assert rig.state(job) == ("running", None)
    assert not any(isinstance(message, Cancel) for message in worker.sent)
    rig.clock.advance(1)
    store.settle_down()
    assert rig.state(job) == ("stopping", "timeout")
    worker.fail(job, "cancelled")
    store.settle_down()
    assert [event.seq for event in rig.read(job)] == [1, 2, 3, 4]


@pytest.mark.parametrize("given", [{"run": 0.5}, {"idle": 0.5}, {"total": 0.5}])
def test_the_envelope_may_set_each_timeout(rig: Rig, given: dict[str, float]) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1}, timeouts=given)
    worker.begin(job)
    rig.clock.advance(0.5)
    assert rig.state(job) == ("stopping", "timeout")


def test_the_total_timeout_runs_while_a_job_waits(rig: Rig) -> None:
    """It ends a job that finds no slot, and one that waits for its next try."""
    waits = rig.submit("add", {"a": 2}, timeouts={"total": 5})
    rig.clock.advance(4.9)
    assert rig.state(waits)[0] == "queued"
    rig.clock.advance(0.2)
    assert rig.state(waits)[0] == "expired"
    worker = rig.worker()
    again = rig.submit("quick", retries=3, backoff={"base_s": 600, "max_s": 600}, timeouts={"total": 5})
    worker.fail(again)
    assert rig.state(again)[0] == "retrying"
    rig.clock.advance(5.1)
    assert rig.state(again)[0] == "expired"


def test_a_total_timeout_that_ends_before_the_start_is_refused(rig: Rig) -> None:
    with pytest.raises(JobsvcError, match="/timeouts/total"):
        rig.job("quick", delay_s=60, timeouts={"total": 5})


def test_a_coroutine_cancelled_now_has_the_time_to_reach_its_next_await(rig: Rig) -> None:
    """Only when it does not stop its worker is replaced, which costs its neighbours nothing but time."""
    worker = rig.worker("io")
    job = rig.submit("spin")
    worker.begin(job)
    rig.cancel(job, "now")
    rig.clock.advance(0)
    assert rig.worn == []
    worker.fail(job, "cancelled")
    assert rig.state(job)[0] == "cancelled"
    rig.clock.advance(2)
    assert rig.worn == []
