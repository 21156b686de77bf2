"""F2: how an attempt's end is judged. Pure: the rules of design section 7 in one place, no store, no clock."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from jobsvc.engine.board import Active
from jobsvc.model.errors import JobError, Where
from jobsvc.model.events import Attempt
from jobsvc.model.job import Job
from jobsvc.model.limits import LOSSES_MAX, STALL_S
from jobsvc.model.states import Reason, State
from jobsvc.model.task import Backoff
from jobsvc.ports import Death

RETRYABLE = frozenset(("task_error", "timeout", "crashed", "stalled", "unavailable", "lost"))
"""Kinds worth another try: the others would end the same way."""


class Verdict(msgspec.Struct, gc=False):
    """Where the job goes. `counted`: the attempt counts against the policy. `record`: it is worth a row of its own
    when the job goes on (an attempt that never began is not).
    """  # fmt: skip

    to: State
    reason: str | None = None
    result: bytes | None = None
    error: JobError | None = None
    delay_s: float | None = None
    counted: bool = True
    lost: bool = False
    record: bool = True


def backoff_s(backoff: Backoff, attempt: int, uniform: Callable[[float, float], float]) -> float:
    """Delay before the next try after try number `attempt`: full jitter under a capped exponential."""
    # 2**n overflows a float long after any cap has been reached.
    return uniform(0.0, min(backoff.max_s, backoff.base_s * 2.0 ** min(attempt - 1, 60)))


def ended(
    active: Active, error: JobError | None, body: bytes, uniform: Callable[[float, float], float]
) -> Verdict:
    """The executor reported the end of the attempt."""
    if error is None:
        # Also while stopping: it returned before it was stopped, the effect happened, say so.
        return Verdict("succeeded", result=body)
    stop = active.stop
    if stop is not None and stop.reason != "timeout" and error.kind in ("cancelled", "crashed"):
        return stopped(active, error, uniform)
    if stop is not None and stop.reason == "timeout" and error.kind in ("cancelled", "crashed", "timeout"):
        return stopped(active, error, uniform)
    if error.kind == "cancelled":
        error = JobError("task_error", error.type, error.message or "the task cancelled itself")
    return failed(active, error, uniform)


def failed(active: Active, error: JobError, uniform: Callable[[float, float], float]) -> Verdict:
    """The attempt failed and counts: another try if the policy has one left and the kind is worth it."""
    error.retryable = error.kind in RETRYABLE
    stop = active.stop
    if stop is not None and (stop.reason == "cancel_asked" or stop.passed == "total"):
        return Verdict("failed", error=error)
    if error.retryable and active.job.attempt < active.policy.max_attempts:
        return Verdict(
            "retrying",
            "retry",
            error=error,
            delay_s=backoff_s(active.policy.backoff, active.job.attempt, uniform),
        )
    return Verdict("failed", error=error)


def stopped(active: Active, error: JobError | None, uniform: Callable[[float, float], float]) -> Verdict:
    """The attempt was asked to stop and has been seen to stop."""
    reason = active.stop.reason if active.stop is not None else "drained"
    if reason == "cancel_asked":
        kept = error.exit if error is not None else None
        return Verdict(
            "cancelled",
            "cancel_asked",
            error=JobError("cancelled", message="cancelled on request", exit=kept),
        )
    if reason == "drained":
        return _again(active, "drained", "stopped as the daemon ended")
    return failed(active, timed_out(active), uniform)


def timed_out(active: Active) -> JobError:
    """The error of an attempt that took too long."""
    passed = active.stop.passed if active.stop is not None else None
    given_s = None if passed is None else getattr(active.policy.timeouts, passed)
    return JobError(
        "timeout",
        message="stopped by its timeout" if given_s is None else f"{passed} timeout of {given_s:g} s",
    )


def not_begun(active: Active, uniform: Callable[[float, float], float]) -> Verdict:
    """The attempt was handed over and will not begin: nothing has happened, whatever `on_lost` says."""
    stop = active.stop
    if stop is None or stop.reason == "drained":
        return Verdict("queued", "recalled", counted=False, record=False)
    return stopped(active, None, uniform)


def worker_died(  # noqa: PLR0911 - one return for each rule
    active: Active, death: Death, now_us: int, uniform: Callable[[float, float], float]
) -> Verdict:
    """The worker that hosted the attempt is gone: crashed, lost, stopped, or never begun."""
    if active.began_us is None and death.running != active.key:
        return not_begun(active, uniform)
    if active.stop is not None:
        return stopped(active, None, uniform)
    if death.how == "exit":
        how = death.exit
        words = "the worker process exited"
        if how is not None and how.name is not UNSET:
            words = f"the worker process was ended by {how.name}"
        elif how is not None and how.code is not UNSET:
            words = f"the worker process exited with status {how.code}"
        return failed(active, JobError("crashed", message=words, exit=how), uniform)
    if death.how == "stalled" and (death.running == active.key):
        return failed(
            active,
            JobError("stalled", message="the attempt held up the worker's loop until it was killed"),
            uniform,
        )
    if death.how == "stalled" and death.running is None and _suspect(active, now_us):
        return lost(active)
    if death.how in ("killed", "stalled", "quit"):
        # A neighbour was stopped, or the daemon ends: this one is not to blame and loses no try.
        return _again(active, "lost", "stopped with its worker")
    return lost(active)


def _suspect(active: Active, now_us: int) -> bool:
    """Whether it may have held up a worker in which nobody can be blamed: a thread that ran all the while."""
    began_us = active.began_us
    return active.job.executor == "thread" and began_us is not None and now_us - began_us >= STALL_S * 1e6


def _again(active: Active, reason: Reason, words: str) -> Verdict:
    """Stopped through no fault of its own after it had begun: runs again, unless it must not run twice."""
    if active.policy.on_lost == "fail":
        return Verdict(
            "failed", error=JobError("lost", message=f"{words}; on_lost=fail forbids another start")
        )
    return Verdict("queued", reason, error=JobError("lost", message=words), counted=False)


def lost(active: Active) -> Verdict:
    """Its end is unknown: again at once and uncounted, unless it must not run twice or has been lost too often."""
    losses = active.job.losses + 1
    if active.policy.on_lost == "fail":
        return Verdict(
            "failed",
            error=JobError("lost", message="the worker was lost; on_lost=fail forbids another start"),
            lost=True,
        )
    if losses >= LOSSES_MAX:
        text = f"lost {losses} times while the daemon lived: not started again"
        return Verdict("failed", error=JobError("lost", message=text), lost=True)
    words = "the worker was lost; the job is queued again and the attempt does not count"
    return Verdict("queued", "lost", error=JobError("lost", message=words), counted=False, lost=True)


def unkept(active: Active) -> Verdict:
    """It came to its end, but its result could not be kept: runs again, unless it must not run twice."""
    return _again(active, "lost", "its result could not be kept while the disk was full")


def located(error: JobError, job: Job) -> bytes:
    """The error as it is stored, with where it happened."""
    error.where = Where(job.executor, job.owner, job.attempt, job.epoch)
    return msgspec.json.encode(error)


def attempt_record(active: Active, verdict: Verdict, at: int, error: bytes | None) -> Attempt | None:
    """The row of `attempts` for an attempt after which the job goes on."""
    if not verdict.record:
        return None
    job = active.job
    state = {"retrying": "failed", "queued": verdict.reason or "lost"}.get(verdict.to, verdict.to)
    return Attempt(
        epoch=job.epoch, attempt=job.attempt, state=state, began_at=active.began_us, finished_at=at,
        worker=job.owner, error=error,
    )  # fmt: skip
