"""F2: how an attempt's end is judged. Pure: the rules of design section 7 in one place, no store, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import UNSET

from jobsvc.engine.board import Active
from jobsvc.model.errors import Exit, JobError, Where
from jobsvc.model.events import Attempt
from jobsvc.model.frames import Again
from jobsvc.model.job import Job
from jobsvc.model.limits import LOSSES_MAX, PING_S, STALL_S
from jobsvc.model.states import Reason, State
from jobsvc.model.task import Backoff
from jobsvc.ports import Death

RETRYABLE = frozenset(("task_error", "timeout", "crashed", "stalled", "unavailable", "lost"))
"""Kinds worth another try: the others would end the same way."""

_STALLS = {
    "loop": "the attempt held up the worker's loop until it was killed",
    "process": "the attempt's process was stopped by a signal and not continued, until it was killed",
}

EXPONENT_MAX = 1023
"""Of a float: a larger one overflows. No policy has so many attempts (`RETRIES_MAX`)."""


SILENT_S = STALL_S - 2 * PING_S
"""Who has held up a worker may have begun after its last answer, by as much as lies between two of them and a little:
younger than `STALL_S`, though it ran all the while that the worker was silent."""

HALTED = frozenset(("cancelled", "crashed", "lost"))
"""Kinds in which the end of what was asked to stop may show itself."""


class Verdict(msgspec.Struct, gc=False):
    """Where the job goes. `counted`: the attempt counts against the policy. `record`: it is worth a row of its own
    when the job goes on (an attempt that never began is not). It goes on after `delay_s`, or at `due_us`.
    """  # fmt: skip

    to: State
    reason: str | None = None
    result: bytes | None = None
    error: JobError | None = None
    delay_s: float | None = None
    due_us: int | None = None
    counted: bool = True
    lost: bool = False
    record: bool = True


def backoff_s(backoff: Backoff, attempt: int, uniform: Callable[[float, float], float]) -> float:
    """Delay before the next try after try number `attempt`: full jitter under a capped exponential."""
    return uniform(0.0, min(backoff.max_s, backoff.base_s * 2.0 ** min(attempt - 1, EXPONENT_MAX)))


def ended(
    active: Active,
    error: JobError | None,
    body: bytes,
    uniform: Callable[[float, float], float],
    again: Again | None = None,
) -> Verdict:
    """The executor reported the end of the attempt; `again`: what its code says about running again."""
    stop = active.stop
    if again is not None and again.how == "snooze":
        return snoozed(active, again, uniform)
    if error is None:
        # Also while stopping: it returned before it was stopped, the effect happened, say so.
        return Verdict("succeeded", result=body)
    if again is not None and again.how == "retry" and stop is not None and stop.reason == "cancel_asked":
        return stopped(active, error, uniform)  # it has not done its work, and must not be tried again
    late = error.kind == "timeout" and stop is not None and stop.reason == "timeout"
    if stop is not None and (late or error.kind in HALTED):
        return stopped(active, error, uniform)
    if error.kind == "lost":
        return lost(active, error.exit)  # a program was killed by nobody knows whom
    if error.kind == "cancelled":
        error = JobError("task_error", error.type, error.message or "the task cancelled itself")
    return failed(active, error, uniform, again)


def snoozed(active: Active, again: Again, uniform: Callable[[float, float], float]) -> Verdict:
    """The job asked to wait: it counts for nothing. That undoes neither a cancel nor a timeout."""
    stop = active.stop
    if stop is not None and stop.reason != "drained":
        return stopped(active, None, uniform)
    return Verdict("retrying", "snoozed", delay_s=again.after_s or 0.0, due_us=again.at_us, counted=False)


def failed(
    active: Active, error: JobError, uniform: Callable[[float, float], float], again: Again | None = None
) -> Verdict:
    """The attempt failed and counts: another try if the policy has one left and the error is worth it.

    The kind says whether it is, and then its code, by `again`, which may also say when.
    """
    error.retryable = error.kind in RETRYABLE and (again is None or again.how != "never")
    stop = active.stop
    if stop is not None and (stop.reason == "cancel_asked" or stop.passed == "total"):
        return Verdict("failed", error=error)
    if error.retryable and active.job.attempt < active.policy.max_attempts:
        asked_s = None if again is None else again.after_s
        delay_s = (
            backoff_s(active.policy.backoff, active.job.attempt, uniform) if asked_s is None else asked_s
        )
        return Verdict("retrying", "retry", error=error, delay_s=delay_s)
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


def suspects(
    actives: Iterable[Active], orphans: Iterable[tuple[int, int]], death: Death
) -> frozenset[tuple[int, int]]:
    """Who may have made this worker end by itself.

    In a cpu worker that is the one its mark names. In an io worker any thread may have, given-up ones too, and of the
    coroutines the one whose step the mark names; where there is none of these, any coroutine, by a thread of its own.
    """
    begun = [active for active in actives if _may_have_begun(active, death)]
    likely = {active.key for active in begun if active.job.executor != "loop" or active.key == death.running}
    return frozenset(likely.union(orphans)) or frozenset(active.key for active in begun)


def _may_have_begun(active: Active, death: Death) -> bool:
    # Of a quick one an io worker's word that it has begun may have gone with the worker; a cpu worker has its mark.
    unheard = active.quick and active.job.executor in ("thread", "loop")
    return active.began_us is not None or death.running == active.key or unheard


def worker_died(  # noqa: PLR0911 - one return for each rule
    active: Active,
    death: Death,
    suspected: frozenset[tuple[int, int]],
    now_us: int,
    uniform: Callable[[float, float], float],
) -> Verdict:
    """The worker that hosted the attempt is gone: crashed, lost, stopped, or never begun."""
    if not _may_have_begun(active, death):
        return not_begun(active, uniform)
    if active.stop is not None:
        return stopped(active, None, uniform)
    if death.how == "exit":
        if active.key not in suspected:
            return _again(active, "lost", "its worker was ended by another attempt")
        if len(suspected) > 1:
            return lost(active, death.exit)  # it may have done it: again, but not for ever
        return failed(active, JobError("crashed", message=_exit_words(death), exit=death.exit), uniform)
    if death.how == "stalled" and (death.running == active.key):
        return failed(
            active,
            JobError("stalled", message=_STALLS.get(active.job.executor, _STALLS["loop"])),
            uniform,
        )
    if death.how == "stalled" and death.running is None and _suspect(active, now_us):
        return lost(active, death.exit)
    if death.how in ("killed", "stalled", "quit"):
        # A neighbour was stopped, or the daemon ends: this one is not to blame and loses no try.
        return _again(active, "lost", "stopped with its worker")
    return lost(active, death.exit)


def _exit_words(death: Death) -> str:
    """How the worker process ended by itself, or for what its attempt used."""
    how = death.exit
    if death.limit is not None:
        return death.limit
    if how is not None and how.oom is True:
        return "the kernel ended the worker process for want of memory"
    if how is not None and how.name is not UNSET:
        return f"the worker process was ended by {how.name}"
    if how is not None and how.code is not UNSET:
        return f"the worker process exited with status {how.code}"
    return "the worker process exited"


def _suspect(active: Active, now_us: int) -> bool:
    """Whether it may have held up a worker in which nobody can be blamed: a thread that ran all the while."""
    began_us = active.began_us
    return active.job.executor == "thread" and began_us is not None and now_us - began_us >= SILENT_S * 1e6


def _again(active: Active, reason: Reason, words: str) -> Verdict:
    """Stopped through no fault of its own after it had begun: runs again, unless it must not run twice."""
    if active.policy.on_lost == "fail":
        text = f"{words}; on_lost=fail forbids another start"
        return Verdict("failed", "lost", error=JobError("lost", message=text))
    return Verdict("queued", reason, error=JobError("lost", message=words), counted=False)


def lost(active: Active, end: Exit | None = None) -> Verdict:
    """Its end is unknown: again at once and uncounted, unless it must not run twice or has been lost too often.

    Args:
        end: how its process ended, which does not tell what the attempt had done by then.
    """
    losses = active.job.losses + 1
    again = active.policy.on_lost == "retry" and losses < LOSSES_MAX
    if again:
        words = "the worker was lost; the job is queued again and the attempt does not count"
    elif active.policy.on_lost == "fail":
        words = "the worker was lost; on_lost=fail forbids another start"
    else:
        words = f"lost {losses} times while the daemon lived: not started again"
    error = JobError("lost", message=words, exit=end)
    return Verdict("queued" if again else "failed", "lost", error=error, counted=not again, lost=True)


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
    state = "failed" if verdict.counted else verdict.reason or "lost"
    return Attempt(
        epoch=job.epoch, attempt=job.attempt, state=state, began_at=active.began_us, finished_at=at,
        worker=job.owner, error=error,
    )  # fmt: skip
