"""Cancel, in every state and mode; and the other things done to a job: retry, run now, delete."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from jobsvc.model.errors import Exit
from jobsvc.ports import Death
from tests.engine.fakes import FakeWorker, Rig, error_of, result_of

KILL = Death("killed", Exit(signal=9, name="SIGKILL"))


def killed(worker: FakeWorker) -> None:
    worker.die(Death("killed", Exit(signal=9, name="SIGKILL")))


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["polite", "deadline", "now"])
@pytest.mark.parametrize("state", ["scheduled", "queued", "retrying"])
def test_a_waiting_job_is_cancelled_at_once(rig: Rig, state: str, mode: str) -> None:
    if state == "retrying":
        worker = rig.worker()
        job = rig.submit("flaky")
        worker.fail(job)
    else:
        job = rig.submit("thumbnail", **({"delay_s": 60} if state == "scheduled" else {}))
    assert rig.state(job)[0] == state
    waiting = rig.engine.wait(job.id, "default", 60)
    cancelled, was_waiting = result_of(rig.cancel(job, mode))
    assert was_waiting
    assert (cancelled.state, cancelled.reason) == ("cancelled", "cancel_asked")
    assert result_of(waiting).state == "cancelled"
    assert rig.error(job).kind == "cancelled"
    rig.clock.advance(120)
    rig.worker("io")
    assert rig.state(job) == ("cancelled", "cancel_asked")
    assert rig.states(job)[-1] == "cancelled"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_final_job_cannot_be_cancelled(rig: Rig, end: str) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    if end == "succeeded":
        worker.succeed(job)
    elif end == "failed":
        worker.fail(job)
    else:
        result_of(rig.cancel(job))
        worker.fail(job, "cancelled")
    error = error_of(rig.cancel(job))
    assert error.code == "conflict"
    assert end in error.detail


def test_an_unknown_job_cannot_be_cancelled(rig: Rig) -> None:
    rig.worker()
    running, job = rig.submit("add", {"a": 1}), rig.submit("thumbnail")
    result_of(rig.cancel(job))
    result_of(rig.engine.delete(job.id, "default"))
    assert error_of(rig.cancel(job)).code == "not_found"
    for each in (running, job):  # what another tenant has is not there
        assert error_of(rig.engine.cancel(each.id, "other", "polite", 5)).code == "not_found"
    assert rig.state(running)[0] == "running"


# -- running ---------------------------------------------------------------------------------------------------------


def test_polite_asks_and_never_kills(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    start = worker.begin(job)
    stopping, was_waiting = result_of(rig.cancel(job))
    assert (stopping.state, stopping.reason, was_waiting) == ("stopping", "cancel_asked", False)
    assert worker.cancels == [((start.no, start.epoch), "cancel_asked")]
    rig.clock.advance(3600)
    assert worker.killed == []
    assert rig.state(job) == ("stopping", "cancel_asked")
    worker.fail(job, "cancelled")
    assert rig.state(job) == ("cancelled", "cancel_asked")
    assert rig.error(job).kind == "cancelled"
    assert rig.states(job) == ["running", "stopping", "cancelled"]


def test_deadline_kills_after_its_grace(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    start = worker.begin(job)
    result_of(rig.cancel(job, "deadline", 3))
    rig.clock.advance(2.9)
    assert worker.killed == []
    rig.clock.advance(0.2)
    assert worker.killed == [(start.no, start.epoch)]
    assert rig.state(job)[0] == "stopping"
    killed(worker)
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_now_kills_at_once(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    result_of(rig.cancel(job, "now"))
    rig.clock.advance(0)
    assert len(worker.killed) == 1


def test_a_later_cancel_may_only_bring_the_kill_forward(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    result_of(rig.cancel(job))
    result_of(rig.cancel(job, "deadline", 10))
    result_of(rig.cancel(job, "deadline", 60))
    result_of(rig.cancel(job, "polite"))
    rig.clock.advance(9)
    result_of(rig.cancel(job, "deadline", 5))
    rig.clock.advance(1)
    assert len(worker.killed) == 1
    assert len(worker.cancels) == 1


def test_a_command_is_asked_and_killed_too(rig: Rig) -> None:
    worker = rig.worker("command")
    job = rig.submit("cat", {"path": "x"})
    worker.begin(job)
    result_of(rig.cancel(job, "deadline", 1))
    rig.clock.advance(1)
    assert len(worker.killed) == 1
    worker.fail(job, "crashed")
    assert rig.state(job) == ("cancelled", "cancel_asked")


@pytest.mark.parametrize("mode", ["deadline", "now"])
def test_a_thread_cannot_be_killed_and_nothing_changes(rig: Rig, mode: str) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    error = error_of(rig.cancel(job, mode))
    assert error.code == "cannot_kill"
    assert "polite" in error.detail
    assert rig.state(job) == ("running", None)
    assert worker.cancels == []
    result_of(rig.cancel(job))
    assert rig.state(job) == ("stopping", "cancel_asked")


def test_a_result_beats_the_cancel(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    result_of(rig.cancel(job))
    worker.succeed(job, b"1")
    assert rig.state(job) == ("succeeded", None)
    assert rig.states(job) == ["running", "stopping", "succeeded"]


def test_an_error_of_its_own_while_stopping_fails_it_for_good(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.begin(job)
    result_of(rig.cancel(job))
    worker.fail(job, message="while cleaning up")
    assert (rig.state(job)[0], rig.error(job).message) == ("failed", "while cleaning up")


def test_what_has_not_begun_comes_back_and_is_cancelled(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    first, second = rig.submit_many("quick", 2)
    worker.begin(first, frame=False)
    result_of(rig.cancel(second, "now"))
    rig.clock.advance(1)
    assert worker.killed == []  # that would hit the first
    worker.give_back(second)
    assert rig.state(second) == ("cancelled", "cancel_asked")
    assert rig.state(first)[0] == "running"


def test_what_has_not_begun_is_cancelled_when_its_worker_dies(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    first, second = rig.submit_many("quick", 2)
    worker.begin(first, frame=False)
    result_of(rig.cancel(second))
    worker.lose()
    rig.worker()
    assert rig.state(second) == ("cancelled", "cancel_asked")
    assert rig.state(first)[0] == "running"


def test_a_cancel_of_what_stops_for_its_timeout_is_kept(rig: Rig) -> None:
    """It was promised to stop: no further try."""
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("stopping", "timeout")
    result_of(rig.cancel(job))
    worker.fail(job, "cancelled")
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_a_cancel_of_what_stops_for_a_drain_is_kept(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    rig.engine.stop_claiming()
    rig.engine.stop_all()
    assert rig.state(job) == ("stopping", "drained")
    result_of(rig.cancel(job))
    killed(worker)
    assert rig.state(job) == ("cancelled", "cancel_asked")


# -- retry, run now, delete ------------------------------------------------------------------------------------------


def test_retry_makes_a_new_job_of_the_same_spec(rig: Rig) -> None:
    worker = rig.worker()
    old = rig.submit("add", {"a": 1}, labels={"who": "me"}, priority=4, queue="slow", key="once", retries=2)
    worker.fail(old, "rejected")
    new = result_of(rig.engine.retry(old.id, "default"))
    assert new.id != old.id
    assert (new.rerun_of, new.args, new.labels, new.priority, new.queue, new.policy, new.key) == (
        old.id, b'{"a":1}', b'{"who":"me"}', 4, "slow", old.policy, None,
    )  # fmt: skip
    worker.succeed(new, b"1")
    assert rig.state(new)[0] == "succeeded"
    assert rig.state(old)[0] == "failed"  # it stays as it ended


def test_only_final_jobs_are_retried(rig: Rig) -> None:
    rig.worker()
    assert error_of(rig.engine.retry(rig.submit("add", {"a": 1}).id, "default")).code == "conflict"
    assert error_of(rig.engine.retry(rig.submit("fetch").id, "default")).code == "conflict"


def test_a_retry_needs_the_task_and_arguments_that_fit_it(rig: Rig) -> None:
    worker = rig.worker()
    old = rig.submit("quick", {"n": 1})
    worker.fail(old)
    specs = dict(rig.engine.tasks)
    rig.reload({**specs, "quick": specs["fetch"]})
    assert error_of(rig.engine.retry(old.id, "default")).code == "invalid_args"
    rig.reload({name: spec for name, spec in specs.items() if name != "quick"})
    assert error_of(rig.engine.retry(old.id, "default")).code == "no_such_task"


def test_run_now_queues_what_waits_for_its_time(rig: Rig) -> None:
    worker = rig.worker()
    later = rig.submit("add", {"a": 1}, delay_s=3600)
    assert result_of(rig.engine.run_now(later.id, "default")).id == later.id
    assert rig.state(later) == ("running", None)
    worker.succeed(later)
    failing = rig.submit("flaky")
    worker.fail(failing)
    result_of(rig.engine.run_now(failing.id, "default"))
    assert rig.state(failing)[0] == "running"
    assert rig.states(failing) == ["running", "retrying", "queued", "running"]
    rig.clock.advance(3600)
    assert error_of(rig.engine.run_now(failing.id, "default")).code == "conflict"
    assert error_of(rig.engine.run_now(later.id, "default")).code == "conflict"


def test_only_final_jobs_are_deleted_and_then_they_are_gone(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail", key="mine")
    assert error_of(rig.engine.delete(job.id, "default")).code == "conflict"
    worker.items(job, 1, 2)
    worker.succeed(job)
    result_of(rig.engine.delete(job.id, "default"))
    gone: list[Deferred[Any]] = [
        rig.engine.get(job.id, "default"),
        rig.engine.delete(job.id, "default"),
        rig.engine.retry(job.id, "default"),
        rig.engine.attempts(job.id, "default"),
    ]
    assert [error_of(deferred).code for deferred in gone] == ["not_found"] * 4
    assert rig.submit("thumbnail", key="mine").id != job.id  # its key is free again
