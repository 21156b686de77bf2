"""F63: somebody sets the wall clock while jobs wait and run. What has been promised in seconds keeps its seconds."""

from __future__ import annotations

import pytest

from jobsvc.engine.chores import LOOK_S
from jobsvc.model.clock import time_text
from tests.engine.fakes import Rig

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
STEPS = pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, DAY_S], ids=["+1 h", "-1 h", "+1 day"])


@STEPS
def test_the_run_timeout_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": 5, "idle": None, "total": None})
    worker.begin(job)
    rig.stepped_s = step_s
    rig.clock.advance(4.9)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(0.1)
    assert rig.state(job) == ("stopping", "timeout")


@STEPS
def test_the_idle_timeout_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": None, "idle": 2, "total": None})
    worker.begin(job)
    rig.clock.advance(1)
    rig.stepped_s = step_s
    worker.items(job, 1)
    rig.clock.advance(1.9)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(0.1)
    assert rig.state(job) == ("stopping", "timeout")


@STEPS
def test_the_total_timeout_of_a_running_job_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": None, "idle": None, "total": 60})
    worker.begin(job)
    rig.stepped_s = step_s
    rig.clock.advance(59)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(1)
    assert rig.state(job) == ("stopping", "timeout")


@STEPS
def test_the_grace_of_a_cancel_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"run": None, "idle": None, "total": None})
    start = worker.begin(job)
    rig.cancel(job, "deadline", 5)
    rig.stepped_s = step_s
    rig.clock.advance(4.9)
    assert worker.killed == []
    rig.clock.advance(0.1)
    assert worker.killed == [(start.no, start.epoch)]


@STEPS
def test_a_backoff_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    """Once the step is noticed, which a look at the due times does."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1, backoff={"base_s": 90, "max_s": 90})
    worker.begin(job)
    worker.fail(job)
    due_s = 90 + rig.clock.seconds()
    rig.stepped_s = step_s
    if step_s < 0:
        rig.clock.pump([LOOK_S] * 2)
        assert rig.state(job) == ("retrying", "retry")
        rig.clock.advance(due_s - rig.clock.seconds())
        assert worker.has(job)
    else:
        rig.clock.advance(LOOK_S)
        assert rig.state(job) == ("retrying", "retry"), "not at once, though its moment has been jumped over"
        rig.clock.advance(LOOK_S)
        assert rig.state(job) == ("retrying", "retry")
        rig.clock.advance(LOOK_S)
        assert worker.has(job)


@STEPS
def test_a_backoff_that_begins_before_a_step_is_noticed_keeps_its_seconds(rig: Rig, step_s: float) -> None:
    """It is not moved by a step that came before it."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1, backoff={"base_s": 90, "max_s": 90})
    worker.begin(job)
    rig.stepped_s = step_s
    worker.fail(job)
    rig.clock.pump([LOOK_S] * 2)
    assert rig.state(job) == ("retrying", "retry")
    rig.clock.pump([LOOK_S] * 2)
    assert worker.has(job)


def test_scheduled_jobs_follow_the_wall_clock_forward_once(rig: Rig) -> None:
    """Those whose moment was jumped over are queued, each once, soon after; the others wait on."""
    worker = rig.worker("io")
    soon = [rig.submit("thumbnail", run_at=time_text(rig.now_us() + 1_800_000_000)) for _ in range(3)]
    later = rig.submit("thumbnail", run_at=time_text(rig.now_us() + 7_200_000_000))
    rig.stepped_s = HOUR_S
    rig.clock.advance(LOOK_S)
    assert all(worker.has(job) for job in soon)
    assert rig.state(later)[0] == "scheduled"
    for job in soon:
        worker.succeed(job)
    rig.stepped_s = 0.0
    rig.clock.advance(LOOK_S)
    assert [rig.get(job).epoch for job in soon] == [1, 1, 1]
    assert rig.state(later)[0] == "scheduled"


def test_scheduled_jobs_follow_the_wall_clock_back(rig: Rig) -> None:
    """Set back by an hour, a job due in ten minutes waits for seventy, and the daemon does not spin meanwhile."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", run_at=time_text(rig.now_us() + 600_000_000))
    rig.stepped_s = -HOUR_S
    for _ in range(int((600 + HOUR_S) / LOOK_S) - 1):
        rig.clock.advance(LOOK_S)
        assert rig.state(job)[0] == "scheduled"
        assert len(rig.clock.getDelayedCalls()) == 2, "one timer for what is due, one for retention"
    rig.clock.advance(LOOK_S)
    assert worker.has(job)
