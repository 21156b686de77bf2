"""The table of states against a store, without chance: every way is gone, and every other pair of states is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobsvc.model.job import Job
from jobsvc.model.states import FINAL, STATES, TRANSITIONS, WAITING, State, allowed
from jobsvc.ports import Claim, Move
from jobsvc.store.fenced import STEPS_TO
from tests.contract.store_harness import NOW, Held, end_of, job_of, step_of

LATER = NOW + 1_000_000
LIMIT = 100


# -- a job in a state, by the shortest way ----------------------------------------------------------------------------


def make(held: Held, state: State | None, **fields: Any) -> Job:
    """A job in that state; None: not stored yet."""
    if state is None:
        return job_of(**fields)
    if state in ("scheduled", "blocked", "queued"):
        due = NOW + 500 if state == "scheduled" else None
        [job] = held.submitted(job_of(state=state, due_at=due, **fields))
        return held.row(job)
    if state == "expired":
        made = make(held, "queued", expires_at=NOW + 5)
        assert go_expire(held, made)
        return held.row(made)
    before, way = BEFORE[state]
    job = make(held, before, **fields)
    assert way(held, job, state), state
    return held.row(job)


def step(held: Held, job: Job, to: State) -> bool:
    due = NOW + 500 if to == "retrying" else None
    [written] = held(held.store.step([step_of(job, to, due_at=due)]))
    return written


def settle(held: Held, job: Job, to: State) -> bool:
    [written] = held(held.store.settle([end_of(job, to)]))
    return written


def move(held: Held, job: Job, to: State) -> bool:
    [moved] = held(held.store.move([Move(id=job.id, frm=STATES, to=to, reason=None, at=LATER, error=b"{}")]))
    return moved is not None


def claim(held: Held, job: Job, _to: State = "running") -> bool:
    [jobs] = held(held.store.claim([Claim("cpu-1", "process", {job.task: LIMIT}, LIMIT, LATER)]))
    return job.id in [each.id for each in jobs]


Way = Callable[[Held, Job, State], bool]
BEFORE: dict[State, tuple[State, Way]] = {
    "held": ("queued", move),
    "retrying": ("running", step),
    "running": ("queued", claim),
    "stopping": ("running", step),
    "succeeded": ("running", settle),
    "failed": ("running", settle),
    "cancelled": ("queued", move),
}
"""From which state, and how, a job comes into each of the others."""


# -- every door of the store that may lead to a state -----------------------------------------------------------------


def go_submit(to: State) -> Way:
    def submitted(held: Held, job: Job, _to: State) -> bool:
        job.state = to
        if to == "running":
            job.owner, job.epoch, job.attempt, job.claimed_at = "cpu-1", 1, 1, NOW
            job.claim_seq = job.seq = job.revision = 2
        [answer] = held(held.store.submit([job]))
        return answer.job is not None and not answer.replayed

    return submitted


def go_wake(held: Held, job: Job, _to: State = "queued") -> bool:
    before = held.row(job)
    held(held.store.wake(LATER, LIMIT))
    return held.row(job) != before


def go_expire(held: Held, job: Job, _to: State = "expired") -> bool:
    return job.id in [each.id for each in held(held.store.expire(LATER, LIMIT))]


def go_delete(held: Held, job: Job, _to: object = None) -> bool:
    return held(held.store.delete(job.id))


def go_purge(held: Held, _job: Job, _to: object = None) -> bool:
    return held(held.store.purge(LATER, LIMIT)) == 1


def go_recover(held: Held, _job: Job, _to: object = None) -> bool:
    done = held(held.store.recover(LATER))
    return bool(done.queued + done.failed + done.cancelled)


def doors(to: State | None) -> Iterator[tuple[str, Way]]:
    """By which methods a job that is stored may be asked to become that; `None`: gone."""
    if to is None:
        yield from (("delete", go_delete), ("purge", go_purge))
        return
    if to in FINAL:
        yield "settle", settle
    if to in STEPS_TO:
        yield "step", step
    if to in FINAL or to in WAITING:
        yield "move", move
    if to == "running":
        yield "claim", claim
    if to == "queued":
        yield "wake", go_wake
    if to == "expired":
        yield "expire", go_expire


PAIRS = [(frm, to) for frm in STATES for to in (*STATES, None)]
ALLOWED = sorted({(way.frm, way.to) for way in TRANSITIONS if way.frm is not None}, key=str)
FORBIDDEN = sorted((pair for pair in PAIRS if not allowed(*pair)), key=str)


def ready(held: Held, frm: State) -> Job:
    """A job in `frm` that nothing but the table keeps from any other state: it is due, and late."""
    return make(held, frm) if frm == "expired" else make(held, frm, expires_at=NOW + 600)


@pytest.mark.parametrize(("frm", "to"), ALLOWED, ids=str)
def test_every_way_of_the_table_can_be_gone(held: Held, frm: State, to: State | None) -> None:
    """By a method of the store; the state, the revision and the events say so."""
    gone = []
    for name, way in doors(to):
        job = ready(held, frm)
        before = held.row(job)
        if not way(held, job, to):  # type: ignore[arg-type]
            assert held.row(job) == before, name
            continue
        gone.append(name)
        if to is None:
            assert held(held.store.get(job.id)) is None
            continue
        after = held.row(job)
        assert after.state == to, name
        assert after.revision == before.revision + 1
        assert held.event_numbers(job) == list(range(2, after.seq + 1))
    assert gone, "no method of the store goes this way"


@pytest.mark.parametrize("to", ["scheduled", "blocked", "queued", "running"])
def test_every_first_state_can_be_submitted(held: Held, to: State) -> None:
    assert go_submit(to)(held, job := make(held, None), to)
    assert held.row(job).state == to


@pytest.mark.parametrize(("frm", "to"), FORBIDDEN, ids=str)
def test_no_other_way_can_be_gone(held: Held, frm: State, to: State | None) -> None:
    """Whatever is asked of the store with the right epoch and owner: refused, and nothing has changed."""
    job = ready(held, frm)
    before = held.row(job)
    events = held.event_numbers(job)
    for name, way in doors(to):
        assert not way(held, job, to), name  # type: ignore[arg-type]
        assert held.row(job) == before, name
    assert held.event_numbers(job) == events


RESCUES: list[tuple[State, str | None, str, State]] = [
    ("running", None, "retry", "queued"),
    ("running", None, "fail", "failed"),
    ("stopping", "timeout", "retry", "queued"),
    ("stopping", "drained", "retry", "queued"),
    ("stopping", "timeout", "fail", "failed"),
    ("stopping", "cancel_asked", "retry", "cancelled"),
    ("stopping", "cancel_asked", "fail", "cancelled"),
]


@pytest.mark.parametrize(("frm", "reason", "on_lost", "to"), RESCUES)
def test_rescue_goes_by_the_table(
    held: Held, frm: State, reason: str | None, on_lost: str, to: State
) -> None:
    """Cancelled where that was asked, failed where it must not run twice, else queued and uncounted."""
    job = make(held, "running", policy=b'{"on_lost":"%s"}' % on_lost.encode())
    if frm == "stopping":
        assert held(held.store.step([step_of(job, "stopping", reason=reason)])) == [True]
    assert allowed(frm, to)
    assert go_recover(held, job)
    after = held.row(job)
    assert (after.state, after.losses) == (to, 0)
    assert after.attempt == (0 if to == "queued" else 1)


@pytest.mark.parametrize("state", [*WAITING, *sorted(FINAL)])
def test_rescue_leaves_alone_what_was_not_active(held: Held, state: State) -> None:
    job = make(held, state)
    before = held.row(job)
    assert not go_recover(held, job)
    assert held.row(job) == before


def test_a_cancel_that_came_after_a_timeout_is_rescued_as_a_cancel(held: Held) -> None:
    """The second reason is in the row as the first one was."""
    job = make(held, "running")
    assert held(held.store.step([step_of(job, "stopping", reason="timeout")])) == [True]
    job = held.row(job)
    assert held(held.store.step([step_of(job, "stopping", reason="cancel_asked")])) == [True]
    assert go_recover(held, job)
    assert held.row(job).state == "cancelled"
