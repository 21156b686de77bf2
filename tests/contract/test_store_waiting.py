"""Contract of a store: jobs that wait, and what ends or wakes them. See `conftest.py`."""

from __future__ import annotations

import msgspec

from jobsvc.model.events import Attempt, state_data
from jobsvc.model.job import Job
from jobsvc.model.limits import INLINE_MAX_BYTES
from jobsvc.ports import Move
from tests.contract.store_harness import NOW, Held, end_of, job_of, step_of

LARGE = b'"' + b"x" * INLINE_MAX_BYTES + b'"'


# -- waiting jobs


def cancel(job: Job) -> Move:
    return Move(
        id=job.id, frm=("scheduled", "queued", "retrying"), to="cancelled", reason="cancel_asked", at=NOW + 40,
        error=b'{"kind":"cancelled"}',
    )  # fmt: skip


def test_a_waiting_job_is_cancelled(held: Held) -> None:
    """It has its outcome, and no claim finds it."""
    (job,) = held.submitted(job_of())
    (moved,) = held(held.store.move([cancel(job)]))
    assert moved == held.row(job)
    assert (moved.state, moved.reason, moved.finished_at) == ("cancelled", "cancel_asked", NOW + 40)
    assert (moved.error, moved.seq, moved.revision) == (b'{"kind":"cancelled"}', 2, 2)
    assert held.claimed() == []
    assert held.event_numbers(job) == [2]


def test_only_the_named_states_are_moved(held: Held) -> None:
    """A running job, a final one and one that is not there stay as they are."""
    job = held.running()
    ended = held.running()
    held(held.store.settle([end_of(ended)]))
    before = held.row(job), held.row(ended)
    assert held(held.store.move([cancel(job), cancel(ended), cancel(job_of())])) == [None, None, None]
    assert (held.row(job), held.row(ended)) == before


def test_run_now(held: Held) -> None:
    """A scheduled job becomes queued, with its event."""
    (job,) = held.submitted(job_of(state="scheduled", run_at=NOW + 99, due_at=NOW + 99, reason="run_at"))
    move = Move(id=job.id, frm=("scheduled", "retrying"), to="queued", reason=None, at=NOW + 5)
    moved, again = held(held.store.move([move, move]))
    assert moved is not None
    assert again is None
    assert (moved.state, moved.due_at, moved.reason, moved.run_at) == ("queued", None, None, NOW + 99)
    assert held.chunks(job)[0].body == state_data("queued", None, 0, 0, 2)
    assert [claimed.id for claimed in held.claimed()] == [job.id]
    assert held.event_numbers(job) == [2, 3]


def test_a_move_may_ask_for_a_reason(held: Held) -> None:
    """A job that waits for another reason meanwhile stays as it is."""
    job = held.running()
    held(held.store.step([step_of(job, "retrying", reason="orphan_running", due_at=None)]))
    other = Move(id=job.id, frm=("retrying",), to="queued", reason="retry", at=NOW + 50, if_reason="retry")
    right = Move(
        id=job.id, frm=("retrying",), to="queued", reason="retry", at=NOW + 50, if_reason="orphan_running"
    )
    refused, moved = held(held.store.move([other, right]))
    assert refused is None
    assert moved is not None
    assert (moved.state, moved.reason) == ("queued", "retry")


def test_a_job_that_was_held_for_a_while(held: Held) -> None:
    """A claim gives it as it stands after the release."""
    (job,) = held.submitted(job_of())
    held(held.store.move([Move(id=job.id, frm=("queued",), to="held", reason="operator", at=NOW + 5)]))
    assert held.claimed() == []
    held(held.store.move([Move(id=job.id, frm=("held",), to="queued", reason=None, at=NOW + 6)]))
    (claimed,) = held.claimed()
    assert claimed == held.row(job)
    assert held.event_numbers(job) == [2, 3, 4]


def test_the_table_limits_moves(held: Held) -> None:
    """Whatever the caller allows: a queued job is not queued again."""
    (job,) = held.submitted(job_of())
    assert held(held.store.move([Move(id=job.id, frm=("queued",), to="queued", reason=None, at=NOW)])) == [
        None
    ]
    assert held.row(job) == job


def test_due_jobs_wake(held: Held) -> None:
    """Those whose time has come, at most so many, earliest first; counted by task."""
    jobs = held.submitted(
        *(job_of(state="scheduled", due_at=NOW + i, task=task) for i, task in enumerate(["a", "b", "a", "a"]))
    )
    assert held(held.store.next_due()) == NOW
    assert held(held.store.wake(NOW + 2, 2)) == {"a": 1, "b": 1}
    assert held(held.store.wake(NOW + 2, 10)) == {"a": 1}
    assert held(held.store.wake(NOW + 2, 10)) == {}
    assert held(held.store.queued()) == {"a": 2, "b": 1}
    assert [held.row(job).state for job in jobs] == ["queued", "queued", "queued", "scheduled"]
    assert held.row(jobs[0]).due_at is None
    assert held.chunks(jobs[0])[0].body == state_data("queued", None, 0, 0, 2)
    assert held.event_numbers(jobs[0]) == [2]
    assert held(held.store.next_due()) == NOW + 3


def test_waiting_jobs_expire(held: Held) -> None:
    """Those whose `expires_at` has passed, not those that run."""
    job = held.running(expires_at=NOW + 1)
    late, later = held.submitted(
        job_of(expires_at=NOW + 2), job_of(state="scheduled", due_at=NOW + 50, expires_at=NOW + 3)
    )
    assert held(held.store.next_due()) == NOW + 2
    (expired,) = held(held.store.expire(NOW + 2, 10))
    assert expired == held.row(late)
    assert (expired.state, expired.finished_at, expired.seq) == ("expired", NOW + 2, 2)
    assert msgspec.json.decode(expired.error or b"")["kind"] == "expired"
    assert held.claimed() == []
    assert [e.id for e in held(held.store.expire(NOW + 3, 10))] == [later.id]
    assert held(held.store.expire(NOW + 3, 10)) == []
    assert held.row(job).state == "running"
    assert held(held.store.next_due()) is None
    assert held.event_numbers(late) == [2]


def test_retries_move_with_a_clock_that_was_set(held: Held) -> None:
    """Only backoffs: what was asked for at a moment keeps it, and so does what waits for something else."""
    retry, other = held.running(), held.running()
    held(held.store.step([step_of(retry, "retrying", reason="retry", due_at=NOW + 100)]))
    held(held.store.step([step_of(other, "retrying", reason="orphan_running")]))
    (later,) = held.submitted(job_of(state="scheduled", reason="run_at", run_at=NOW + 100, due_at=NOW + 100))
    assert held(held.store.shift_retries(-30)) == 1
    assert [held.row(job).due_at for job in (retry, other, later)] == [NOW + 70, None, NOW + 100]
    assert held.row(retry).revision == retry.revision + 1


def test_retries_keep_their_seconds_when_the_clock_was_set_back_between_two_daemons(held: Held) -> None:
    """F63: the backoff begins anew then, and does not wait for the moment to come round again."""
    for now, due in ((NOW + 50, NOW + 100), (NOW - 5000, NOW - 4900)):
        retry, snoozed = held.running(), held.running()
        record = Attempt(
            epoch=1, attempt=1, state="failed", began_at=NOW, finished_at=NOW, worker=None, error=None
        )
        for job, reason in ((retry, "retry"), (snoozed, "snoozed")):
            held(held.store.step([step_of(job, "retrying", reason=reason, due_at=NOW + 100, record=record)]))
        held(held.store.recover(now))
        assert (held.row(retry).state, held.row(retry).due_at) == ("retrying", due)
        assert held.row(snoozed).due_at == NOW + 100
        assert held.row(retry).revision == retry.revision + 1


def test_what_waited_for_a_thread_and_was_to_be_cancelled_is_at_the_next_start(held: Held) -> None:
    """Its thread is gone with the daemon. The other one, which nobody cancelled, is due."""
    job, other = held.running(), held.running()
    for each in (job, other):
        held(held.store.step([step_of(each, "retrying", reason="orphan_running")]))
    asked = Move(job.id, ("retrying",), "retrying", "cancel_asked", NOW + 30, if_reason="orphan_running")
    (moved,) = held(held.store.move([asked]))
    assert moved is not None
    assert held(held.store.recover(NOW + 50)).cancelled == 1
    row = held.row(job)
    assert (row.state, row.reason, row.finished_at) == ("cancelled", "cancel_asked", NOW + 50)
    assert row.error is not None
    assert (held.row(other).state, held.row(other).due_at) == ("retrying", NOW + 50)
    assert held.event_numbers(job) == list(range(2, row.seq + 1))
