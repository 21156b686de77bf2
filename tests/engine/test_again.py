"""What a job's code says about running again: retries at its own moment, errors in vain, snoozes; and the backoff."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.engine.verdict import backoff_s
from jobsvc.model.clock import time_text
from jobsvc.model.frames import Again
from jobsvc.model.job import Job
from jobsvc.model.limits import DURATION_MAX_S, RETRIES_MAX
from jobsvc.model.task import Backoff
from tests.engine.fakes import START_US, PumpedStore, Rig, result_of

Slow = tuple[Rig, PumpedStore]


def rows(rig: Rig, job: Job) -> list[tuple[int, int, str]]:
    """(epoch, attempt, state) of its attempts."""
    return [(a.epoch, a.attempt, a.state) for a in result_of(rig.engine.attempts(job.id, "default"))]


# -- retry -----------------------------------------------------------------------------------------------------------


def test_a_retry_comes_when_the_job_says_instead_of_the_backoff(rig: Rig) -> None:
    """It counts, and without attempts left it is the end, with the words raised."""
    worker = rig.worker()
    job = rig.submit("flaky", retries=2, backoff={"base_s": 600, "max_s": 600})
    worker.fail(job, message="busy", again=Again("retry", 7.5))
    assert rig.state(job) == ("retrying", "retry")
    assert rig.get(job).due_at == rig.now_us() + 7_500_000
    rig.clock.advance(7.6)
    assert worker.start_of(job).attempt == 2
    worker.fail(job, message="busy", again=Again("retry", 0))
    rig.clock.advance(0.001)
    worker.fail(job, message="still busy", again=Again("retry", 3))
    assert rig.state(job) == ("failed", None)
    error = rig.error(job)
    assert (error.kind, error.message, error.retryable) == ("task_error", "still busy", True)
    assert rows(rig, job) == [(1, 1, "failed"), (2, 2, "failed"), (3, 3, "failed")]
    assert rig.free()


def test_a_retry_without_a_moment_waits_for_the_backoff(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky", backoff={"base_s": 4, "max_s": 600})
    worker.fail(job, again=Again("retry"))
    assert rig.get(job).due_at == rig.now_us() + 4_000_000


def test_a_retry_without_any_retries_is_a_failure(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.fail(job, again=Again("retry", 1))
    assert rig.state(job) == ("failed", None)


def test_a_retry_by_a_job_that_was_cancelled_is_its_end(rig: Rig) -> None:
    """It has not done its work, and must not be tried again: cancelled, though attempts are left."""
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.begin(job)
    result_of(rig.cancel(job))
    worker.fail(job, again=Again("retry", 1))
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_a_retry_after_the_run_timeout_still_says_when(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("stopping", "timeout")
    worker.fail(job, again=Again("retry", 30))
    assert rig.state(job) == ("retrying", "retry")
    assert rig.get(job).due_at == rig.now_us() + 30_000_000


# -- errors in vain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["task_error", "crashed"])
def test_an_error_that_its_code_gives_up_on_ends_the_job_at_once(rig: Rig, kind: Any) -> None:
    """Though attempts are left; the error says that it is not worth one."""
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.fail(job, kind, again=Again("never"))
    assert rig.state(job) == ("failed", None)
    assert (rig.error(job).kind, rig.error(job).retryable) == (kind, False)


def test_no_word_of_the_code_makes_a_kind_worth_a_try_that_is_not(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.fail(job, "rejected", again=Again("retry", 1))
    assert (rig.state(job)[0], rig.error(job).retryable) == ("failed", False)


# -- snooze ----------------------------------------------------------------------------------------------------------


def test_a_snoozed_job_waits_and_counts_for_nothing(rig: Rig) -> None:
    """However often: with no retries at all, and when it must not run twice by a loss."""
    worker = rig.worker()
    job = rig.submit("once")
    for epoch in range(1, 6):
        assert (worker.start_of(job).epoch, worker.start_of(job).attempt) == (epoch, 1)
        worker.begin(job)
        worker.snooze(job, 10)
        assert rig.state(job) == ("retrying", "snoozed")
        waiting = rig.get(job)
        assert (waiting.attempt, waiting.losses, waiting.error) == (0, 0, None)
        assert waiting.due_at == rig.now_us() + 10_000_000
        assert rig.free()
        rig.clock.advance(9.9)
        assert rig.state(job)[0] == "retrying"
        rig.clock.advance(0.2)
    worker.succeed(job, b"5")
    done = rig.get(job)
    assert (done.state, done.attempt, done.epoch, done.result) == ("succeeded", 1, 6, b"5")
    assert rows(rig, job) == [(n, 1, "snoozed") for n in range(1, 6)] + [(6, 1, "succeeded")]
    [first, *_] = result_of(rig.engine.attempts(job.id, "default"))
    assert (first.error, first.worker) == (None, worker.id)
    assert rig.states(job)[:4] == ["running", "retrying", "queued", "running"]


def test_a_snooze_until_a_moment_is_due_exactly_then(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("quick")
    moment = START_US + 3_600_000_001
    worker.snooze(job, at_us=moment)
    assert rig.get(job).due_at == moment
    rig.clock.advance(3599)
    assert rig.state(job) == ("retrying", "snoozed")
    rig.clock.advance(1.1)
    assert rig.state(job)[0] == "running"


def test_a_snooze_until_a_moment_that_has_passed_runs_at_once(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("quick")
    worker.snooze(job, at_us=START_US - 1)
    rig.clock.advance(0)
    rig.clock.advance(0.001)
    assert worker.start_of(job).epoch == 2


def test_no_worker_makes_a_job_sleep_for_more_than_a_year(rig: Rig) -> None:
    """Whatever it sends: 2**63 microseconds would not even fit the row."""
    worker = rig.worker()
    job = rig.submit("quick")
    worker.snooze(job, at_us=2**63)
    assert rig.get(job).due_at == rig.now_us() + DURATION_MAX_S * 1e6


def test_a_snooze_does_not_use_up_the_attempts_that_failures_need(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky", retries=1, backoff={"base_s": 1, "max_s": 1})
    worker.fail(job)
    rig.clock.advance(1.1)
    worker.snooze(job, 1)
    rig.clock.advance(1.1)
    assert worker.start_of(job).attempt == 2
    worker.fail(job)
    assert rig.state(job)[0] == "failed"
    assert rows(rig, job) == [(1, 1, "failed"), (2, 2, "snoozed"), (3, 2, "failed")]


def test_a_snoozed_job_may_be_run_now_and_cancelled(rig: Rig) -> None:
    worker = rig.worker()
    job, other = rig.submit("quick"), rig.submit("quick")
    for each in (job, other):
        worker.snooze(each, 3600)
    assert result_of(rig.engine.run_now(job.id, "default")).state in {"queued", "running"}
    worker.succeed(job)
    assert result_of(rig.cancel(other))[1] is True
    assert rig.state(other) == ("cancelled", "cancel_asked")


def test_a_snooze_does_not_undo_a_cancel(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("quick")
    worker.begin(job)
    result_of(rig.cancel(job))
    worker.snooze(job, 10)
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_a_snooze_that_crosses_the_cancel_on_its_way_to_the_disk_does_not_undo_it(slow: Slow) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker()
    job = rig.submit("quick")
    worker.begin(job)
    store.held = True
    rig.cancel(job)
    worker.snooze(job, 10)
    store.settle_down()
    assert rig.state(job) == ("cancelled", "cancel_asked")


def test_a_snooze_does_not_undo_a_timeout(rig: Rig) -> None:
    """The attempt took too long, and counts."""
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None}, retries=0)
    worker.begin(job)
    rig.clock.advance(5)
    worker.snooze(job, 10)
    assert (rig.state(job)[0], rig.error(job).message) == ("failed", "run timeout of 5 s")


def test_a_snooze_during_the_drain_is_kept(rig: Rig) -> None:
    """It has stopped by itself and said when it wants to go on."""
    worker = rig.worker()
    job = rig.submit("quick")
    worker.begin(job)
    rig.engine.stop_claiming()
    rig.engine.stop_all()
    assert rig.state(job) == ("stopping", "drained")
    worker.snooze(job, 10)
    assert rig.state(job) == ("retrying", "snoozed")


@pytest.mark.parametrize(
    "bound", [{"expires_at": time_text(START_US + 10_000_000)}, {"timeouts": {"total": 10}}]
)
def test_a_snoozed_job_expires_like_any_other_that_waits(rig: Rig, bound: dict[str, Any]) -> None:
    """In time, though it ran when its expiry was last looked for."""
    worker = rig.worker()
    job = rig.submit("quick", **bound)
    worker.begin(job)
    rig.submit("once", delay_s=1)  # because of it the due times are looked at while the job runs
    rig.clock.advance(2)
    worker.snooze(job, 3600)
    assert rig.state(job) == ("retrying", "snoozed")
    rig.clock.advance(7.9)
    assert rig.state(job) == ("retrying", "snoozed")
    rig.clock.advance(0.2)
    assert rig.state(job)[0] == "expired"
    assert rig.error(job).kind == "expired"


# -- backoff ---------------------------------------------------------------------------------------------------------

seconds = st.floats(0, DURATION_MAX_S)
attempts = st.integers(1, RETRIES_MAX + 1)


def exact_cap(backoff: Backoff, attempt: int) -> float:
    """min(max_s, base_s * 2**(n-1)) in numbers without an end."""
    return float(min(Fraction(backoff.max_s), Fraction(backoff.base_s) * 2 ** (attempt - 1)))


@given(seconds, seconds, attempts)
def test_the_delay_is_drawn_from_zero_to_the_capped_exponential(
    base: float, cap: float, attempt: int
) -> None:
    """Full jitter: the whole span, whatever the policy and however many attempts; and nothing overflows."""
    backoff = Backoff(base, cap)
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return high

    delay = backoff_s(backoff, attempt, uniform)
    assert spans == [(0.0, exact_cap(backoff, attempt))]
    assert delay <= cap
    assert backoff_s(backoff, attempt + 1, uniform) >= delay


@given(seconds, seconds, attempts, st.randoms(use_true_random=False))
def test_the_delay_is_jittered_within_its_span(base: float, cap: float, attempt: int, random: Random) -> None:
    backoff = Backoff(base, cap)
    assert 0 <= backoff_s(backoff, attempt, random.uniform) <= exact_cap(backoff, attempt)


def test_the_delays_of_many_jobs_are_spread_evenly() -> None:
    """Not all come back at once: each tenth of the span has its share."""
    random = Random(5)
    delays = [backoff_s(Backoff(2, 600), 3, random.uniform) for _ in range(10_000)]
    shares = [sum(n * 0.8 <= delay < (n + 1) * 0.8 for delay in delays) for n in range(10)]
    assert sum(shares) == len(delays)
    assert all(800 < share < 1200 for share in shares)
