"""Contract of a store: other fields for a waiting job, by revision; how many jobs wait. See `conftest.py`."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc.model.events import state_data
from jobsvc.model.job import Job
from jobsvc.model.states import FINAL, State
from jobsvc.ports import Change, Move
from tests.contract.store_harness import NOW, Held, end_of, job_of, step_of
from tests.contract.test_store_ways import make


def change_of(job: Job, **fields: Any) -> Change:
    """Everything as it is, and what is given."""
    usual: dict[str, Any] = {
        "id": job.id, "revision": job.revision, "submitted": b'{"n":0}', "to": None, "reason": None, "at": NOW + 5,
        "priority": job.priority,
        "run_at": job.run_at, "expires_at": job.expires_at, "policy": job.policy, "labels": job.labels,
    }  # fmt: skip
    return Change(**(usual | fields))


def test_every_field_is_changed(held: Held) -> None:
    """The row afterwards is the answer; the event says the new revision; what a claim gives is the new job."""
    (job,) = held.submitted(job_of(labels=b'{"a":"b"}'))
    wanted = change_of(
        job, priority=7, expires_at=NOW + 900, policy=b'{"max_attempts":3}', labels=b'{"c":"d"}'
    )
    changed = held(held.store.change(wanted))
    assert changed == held.row(job)
    assert changed is not None
    assert (changed.state, changed.reason, changed.seq, changed.revision) == ("queued", None, 2, 2)
    assert (changed.priority, changed.expires_at) == (7, NOW + 900)
    assert (changed.policy, changed.labels) == (b'{"max_attempts":3}', b'{"c":"d"}')
    assert [chunk.body for chunk in held.chunks(job)] == [b'{"n":0}', state_data("queued", None, 0, 0, 2)]
    (claimed,) = held.claimed()
    assert (claimed.priority, claimed.labels, claimed.revision) == (7, b'{"c":"d"}', 3)
    assert held.event_numbers(job) == [1, 2, 3]


def test_the_first_event_is_kept_as_it_was_before_the_first_change(held: Held) -> None:
    """Later changes leave it as it is; one that is refused keeps nothing."""
    (job,) = held.submitted(job_of())
    assert held(held.store.change(change_of(job, revision=9))) is None
    assert held.chunks(job) == []
    changed = held(held.store.change(change_of(job, submitted=b'{"n":1}')))
    assert changed is not None
    held(held.store.change(change_of(changed, submitted=b'{"n":2}')))
    first = held.chunks(job)[0]
    assert (first.seq, first.kind, first.at, first.body) == (1, "job", job.created_at, b'{"n":1}')


def test_a_larger_priority_is_claimed_first(held: Held) -> None:
    """The order of the queue follows the change."""
    first, second = held.submitted(job_of(), job_of())
    held(held.store.change(change_of(second, priority=1)))
    assert [job.id for job in held.claimed()] == [second.id, first.id]


def test_another_revision_is_not_changed(held: Held) -> None:
    """Neither an older nor a newer one, nor a job that is not there."""
    (job,) = held.submitted(job_of())
    held(held.store.change(change_of(job, priority=1)))
    row = held.row(job)
    assert held(held.store.change(change_of(job, priority=2))) is None
    assert held(held.store.change(change_of(row, revision=3, priority=2))) is None
    assert held(held.store.change(change_of(job_of()))) is None
    assert held.row(job) == row


@pytest.mark.parametrize("state", ["running", "stopping", *sorted(FINAL)])
def test_only_waiting_jobs_are_changed(held: Held, state: State) -> None:
    """Not by the right revision either."""
    job = make(held, state)
    for to in (None, "queued"):
        assert held(held.store.change(change_of(job, to=to, priority=2))) is None
    assert held.row(job) == job


def test_another_moment(held: Held) -> None:
    """A scheduled job is due then, and not before; queued, it is due no more."""
    (job,) = held.submitted(job_of(state="scheduled", run_at=NOW + 99, due_at=NOW + 99, reason="run_at"))
    later = held(held.store.change(change_of(job, run_at=NOW + 500, due_at=NOW + 500, reason="run_at")))
    assert later is not None
    assert (later.state, later.run_at, later.due_at) == ("scheduled", NOW + 500, NOW + 500)
    assert held(held.store.wake(NOW + 200, 10)) == {}
    assert held(held.store.next_due()) == NOW + 500
    now = held(held.store.change(change_of(later, to="queued", reason="operator", run_at=None)))
    assert now is not None
    assert (now.state, now.reason, now.run_at, now.due_at) == ("queued", "operator", None, None)
    assert held(held.store.next_due()) is None
    assert held.event_numbers(job) == [1, 2, 3]
    assert [claimed.id for claimed in held.claimed()] == [job.id]


@pytest.mark.parametrize("state", ["queued", "held", "blocked"])
def test_only_what_waits_for_its_moment_is_queued(held: Held, state: State) -> None:
    """By the table of states, whatever is asked for."""
    job = make(held, state)
    assert held(held.store.change(change_of(job, to="queued", reason="operator"))) is None
    assert held.row(job) == job


def test_what_waits_for_a_thread_is_not_queued(held: Held) -> None:
    """Two attempts of one job never overlap; its labels may change all the same."""
    job = held.running()
    held(held.store.step([step_of(job, "retrying", reason="orphan_running")]))
    job = held.row(job)
    assert held(held.store.change(change_of(job, to="queued", reason="operator"))) is None
    changed = held(held.store.change(change_of(job, labels=b'{"a":"b"}')))
    assert changed is not None
    assert (changed.state, changed.reason, changed.due_at) == ("retrying", "orphan_running", None)


def test_a_move_may_ask_for_a_revision(held: Held) -> None:
    """Of what has moved meanwhile nothing changes."""
    (job,) = held.submitted(job_of())
    held(held.store.change(change_of(job, priority=1)))
    old = Move(job.id, ("queued",), "cancelled", None, NOW, b"{}", if_revision=1)
    new = Move(job.id, ("queued",), "cancelled", None, NOW, b"{}", if_revision=2)
    refused, moved = held(held.store.move([old, new]))
    assert refused is None
    assert moved is not None
    assert (moved.state, moved.revision) == ("cancelled", 3)


def test_how_many_wait_by_tenant(held: Held) -> None:
    """Queued, scheduled and retrying ones; what is active or has ended does not wait."""
    assert held(held.store.depths()) == {}
    running = held.running(tenant="a")
    retrying = held.running(tenant="b")
    held(held.store.step([step_of(retrying, "retrying", reason="retry", due_at=NOW + 100)]))
    held(held.store.settle([end_of(running)]))
    held.running(tenant="a")
    held.submitted(
        job_of(tenant="a"), job_of(tenant="a", state="scheduled", due_at=NOW + 9), job_of(tenant="c")
    )
    assert held(held.store.depths()) == {"a": 2, "b": 1, "c": 1}
