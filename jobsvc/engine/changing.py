"""F2: PATCH: other fields for a job that waits, under the revision its client has seen. Nothing else is touched.

A change of fields is no way of the table of states: the state stays, and its state event says so with a new revision;
only a job that waited for its moment may be queued by it, as by `run`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from jobsvc.engine.admission import labels_text, timeouts_over
from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.waits import Match, Waits, check_match
from jobsvc.model.clock import named_time_us
from jobsvc.model.errors import JobsvcError, invalid_field
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, Patch, policy_of, submitted_data
from jobsvc.model.limits import DURATION_MAX_S
from jobsvc.model.states import WAITING
from jobsvc.ports import Change, Store

_labels_of = msgspec.json.Decoder(dict[str, str]).decode


class Changing:
    """See the module.

    Args:
        on_due: told of moments at which the job becomes due or expires.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        dispatcher: Dispatcher,
        waits: Waits,
        now_us: Callable[[], int],
        on_due: Callable[[int], None],
    ) -> None:
        self._store = store
        self._bus = bus
        self._dispatcher = dispatcher
        self._waits = waits
        self._now_us = now_us
        self._on_due = on_due

    async def change(self, job_id: bytes, tenant: str, patch: Patch, match: Match) -> Job:
        """See `Engine.change`."""
        while True:
            job = await self._waits.get(job_id, tenant)
            check_match(job, match)
            if job.state not in WAITING:
                raise JobsvcError(
                    "conflict",
                    f"job {id_text(job_id)} is {job.state}: only a waiting job is changed",
                    job=id_text(job_id),
                )
            wanted = _change(job, patch, self._now_us(), self._store.durability)
            if wanted is None:
                return job
            changed = await self._store.change(wanted)
            if changed is not None:
                break
            # It was claimed, cancelled or changed in between: the next look says which.
        self._bus.moved(changed)
        if wanted.to == "queued":
            self._dispatcher.queued((changed.task,))
        for moment in (changed.due_at, changed.expires_at):
            if moment is not None:
                self._on_due(moment)
        return changed


def _change(job: Job, patch: Patch, now: int, durability: str) -> Change | None:
    """The write that brings `job` to what `patch` says; None when that says nothing. Raises invalid_field, conflict."""
    if patch == Patch():
        return None
    change = Change(
        id=job.id, revision=job.revision, submitted=submitted_data(job, durability), to=None, reason=None, at=now,
        priority=job.priority if patch.priority is UNSET else patch.priority,
        run_at=job.run_at, expires_at=job.expires_at, policy=job.policy, labels=job.labels,
    )  # fmt: skip
    if patch.labels is not UNSET:
        change.labels = _labels(job, patch.labels)
    if patch.run_at is not UNSET:
        moment = None if patch.run_at is None else named_time_us("/run_at", patch.run_at)
        _set_moment(job, change, moment, now)
    if patch.timeouts is not UNSET:
        policy = policy_of(job.policy)
        timeouts = timeouts_over(policy.timeouts, patch.timeouts)
        change.policy = msgspec.json.encode(msgspec.structs.replace(policy, timeouts=timeouts))
        if timeouts.total != policy.timeouts.total:
            change.expires_at = _expires(job, policy.timeouts.total, timeouts.total, now)
    due = change.due_at if change.due_at is not None else job.due_at
    if change.to is None and due is not None and change.expires_at is not None and change.expires_at <= due:
        field = "/timeouts/total" if patch.run_at is UNSET else "/run_at"
        raise invalid_field(field, "the job would expire before its moment comes")
    return change


def _labels(job: Job, given: dict[str, str | None] | None) -> bytes:
    """A merge patch (RFC 7396): null takes a label away, or all of them."""
    if given is None:
        return b"{}"
    labels: dict[str, str | None] = {**_labels_of(job.labels), **given}
    return labels_text({key: value for key, value in labels.items() if value is not None})


def _set_moment(job: Job, change: Change, moment: int | None, now: int) -> None:
    """Another moment for a job that waits for one; now, when it has passed or is null."""
    if moment is not None and moment - now > DURATION_MAX_S * 1e6:
        raise invalid_field("/run_at", "more than a year ahead")
    if job.due_at is None:
        if job.state == "queued" and (moment is None or moment <= now):
            return  # it is as soon as can be
        why = (
            "it waits for its last attempt, a thread, to return"
            if job.state == "retrying"
            else f"it is {job.state}, and goes back to no moment; cancel it and submit it anew"
        )
        raise JobsvcError(
            "conflict",
            f"/run_at: only a scheduled or retrying job has one to change: {why}",
            job=id_text(job.id),
        )
    if job.state == "scheduled":
        change.run_at = moment
    if moment is None or moment <= now:
        change.to, change.reason = "queued", "operator"
    else:
        # A moment that was asked for: it stays where it is when somebody sets the clock, other than a backoff.
        change.due_at, change.reason = moment, "run_at"


def _expires(job: Job, before_s: float | None, after_s: float | None, now: int) -> int | None:
    """When it expires under another `total`. An `expires_at` beyond the old total was never kept, so it does not count.

    Raises:
        JobsvcError: invalid_field, the new total is over.
    """
    bound = None if before_s is None else job.created_at + int(before_s * 1_000_000)
    asked = job.expires_at if job.expires_at != bound else None
    if after_s is None:
        return asked
    end = job.created_at + int(after_s * 1_000_000)
    if end <= now:
        raise invalid_field("/timeouts/total", "is over already: it counts from the submission")
    return end if asked is None else min(asked, end)
