"""Changing a waiting job under its revision, and what happens when something else is faster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from jobsvc.model.events import state_data
from jobsvc.model.job import Job, Patch, policy_of
from tests.engine.fakes import START_US, PumpedStore, Rig, at_once, error_of, result_of


def change(rig: Rig, job: Job, match: set[int] | None = None, **fields: Any) -> Deferred[Job]:
    """PATCH with these fields; by default under the revision the job has now."""
    patch = msgspec.json.decode(msgspec.json.encode(fields), type=Patch)
    revisions = {rig.get(job).revision} if match is None else match
    return rig.engine.change(job.id, "default", patch, frozenset(revisions))


def moment(rig: Rig, seconds: float) -> str:
    """So long from now, as text."""
    at = datetime.fromtimestamp(rig.now_us() / 1e6, UTC) + timedelta(seconds=seconds)
    return at.isoformat()


def test_the_fields_of_a_queued_job(rig: Rig) -> None:
    """One more revision, one event, and all of it is there when it starts."""
    job = rig.submit("quick", labels={"a": "1", "b": "2"}, timeouts={"run": 5})
    seen = result_of(
        change(rig, job, priority=9, labels={"a": None, "c": "3"}, timeouts={"run": None, "idle": 2})
    )
    assert (seen.state, seen.priority, seen.revision) == ("queued", 9, 2)
    assert msgspec.json.decode(seen.labels) == {"b": "2", "c": "3"}
    assert policy_of(seen.policy).timeouts == msgspec.convert({"idle": 2.0}, type(policy_of(b"{}").timeouts))
    assert [event.data["revision"] for event in rig.read(job)] == [1, 2]
    worker = rig.worker()
    assert worker.has(job)
    assert rig.get(job).revision == 3


def test_the_first_event_stays_what_it_was(rig: Rig) -> None:
    """Whoever reads it after a change, or after two, sees the job as it was accepted."""
    job = rig.submit("quick", labels={"a": "1"}, priority=3, timeouts={"run": 5})
    [before] = rig.read(job)
    result_of(change(rig, job, priority=9, labels=None, timeouts={"run": 7}))
    result_of(change(rig, job, priority=8))
    assert rig.read(job)[0].data == before.data
    assert (before.data["priority"], before.data["labels"]) == (3, {"a": "1"})


def test_labels_may_all_go(rig: Rig) -> None:
    job = rig.submit("quick", labels={"a": "1"})
    assert result_of(change(rig, job, labels=None)).labels == b"{}"


def test_nothing_to_change_is_no_change(rig: Rig) -> None:
    """An empty patch answers with the job as it is."""
    job = rig.submit("quick")
    assert result_of(change(rig, job)).revision == 1
    assert error_of(change(rig, job, {7})).code == "stale"


def test_a_stale_revision_is_told_the_present_one(rig: Rig) -> None:
    """And changes nothing."""
    job = rig.submit("quick")
    result_of(change(rig, job, priority=1))
    error = error_of(change(rig, job, {1}, priority=2))
    assert (error.code, error.context["revision"]) == ("stale", 2)
    assert rig.get(job).priority == 1


def test_a_list_of_revisions_and_any(rig: Rig) -> None:
    """One of them is enough; None stands for whichever there is."""
    job = rig.submit("quick")
    assert result_of(change(rig, job, {1, 4}, priority=1)).revision == 2
    anyhow = rig.engine.change(job.id, "default", Patch(priority=3), None)
    assert result_of(anyhow).priority == 3


def test_another_tenant_finds_nothing(rig: Rig) -> None:
    job = rig.submit("quick")
    assert error_of(rig.engine.change(job.id, "other", Patch(priority=3), None)).code == "not_found"


def test_only_waiting_jobs(rig: Rig) -> None:
    """A running one and a final one: conflict, with the right revision."""
    worker = rig.worker()
    job = rig.submit("quick")
    assert error_of(change(rig, job, priority=1)).code == "conflict"
    worker.succeed(job)
    assert error_of(change(rig, job, priority=1)).code == "conflict"


def test_a_scheduled_job_gets_another_moment(rig: Rig) -> None:
    """It starts then, neither at the old moment nor before."""
    worker = rig.worker()
    job = rig.submit("quick", delay_s=10)
    seen = result_of(change(rig, job, run_at=moment(rig, 100)))
    assert (seen.state, seen.reason, seen.run_at) == ("scheduled", "run_at", START_US + 100_000_000)
    rig.clock.advance(50)
    assert rig.state(job)[0] == "scheduled"
    rig.clock.advance(51)
    assert worker.has(job)


def test_an_earlier_moment_wakes_the_clock(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("quick", delay_s=3600)
    result_of(change(rig, job, run_at=moment(rig, 2)))
    rig.clock.advance(2.1)
    assert worker.has(job)


@pytest.mark.parametrize("when", [None, -5.0])
def test_null_and_past_start_it_now(rig: Rig, when: float | None) -> None:
    """Along the table: scheduled → queued."""
    worker = rig.worker()
    job = rig.submit("quick", delay_s=3600)
    seen = result_of(change(rig, job, run_at=None if when is None else moment(rig, when)))
    assert (seen.state, seen.reason) == ("queued", "operator")
    assert worker.has(job)
    [_, queued, _] = rig.read(job)
    assert queued.data == msgspec.json.decode(state_data("queued", "operator", 0, 0, 2))


def test_a_retry_is_put_off(rig: Rig) -> None:
    """Its next try comes at the moment that was asked for, wherever the wall clock is set meanwhile."""
    worker = rig.worker()
    job = rig.submit("quick", retries=1)
    worker.begin(job)
    worker.fail(job)
    assert rig.state(job)[0] == "retrying"
    seen = result_of(change(rig, job, run_at=moment(rig, 100)))
    assert (seen.state, seen.reason, seen.due_at) == ("retrying", "run_at", START_US + 100_000_000)
    rig.clock.advance(99)
    assert not worker.has(job)
    rig.clock.advance(2)
    assert worker.has(job)


def test_a_queued_job_does_not_go_back(rig: Rig) -> None:
    """The table has no such way; now is what it has already."""
    job = rig.submit("quick")
    error = error_of(change(rig, job, run_at=moment(rig, 60)))
    assert (error.code, "/run_at" in error.detail) == ("conflict", True)
    assert result_of(change(rig, job, run_at=None)).state == "queued"


def test_what_waits_for_its_thread_keeps_waiting(rig: Rig) -> None:
    """Its moment is not a matter of the clock."""
    worker = rig.worker("io")
    job = rig.submit("stubborn", timeouts={"run": 1})
    worker.begin(job)
    rig.clock.advance(1.1)
    assert rig.state(job) == ("retrying", "orphan_running")
    assert error_of(change(rig, job, run_at=None)).code == "conflict"
    assert result_of(change(rig, job, priority=4)).priority == 4


def test_the_total_timeout_moves_the_end(rig: Rig) -> None:
    """From the submission on; what it bounds follows, in both directions, and away."""
    job = rig.submit("quick", timeouts={"total": 100})
    made = job.created_at
    assert result_of(change(rig, job, timeouts={"total": 50})).expires_at == made + 50_000_000
    assert result_of(change(rig, job, timeouts={"total": 200})).expires_at == made + 200_000_000
    assert result_of(change(rig, job, timeouts={"total": None})).expires_at is None
    assert result_of(change(rig, job, timeouts={"total": 20})).expires_at == made + 20_000_000
    rig.clock.advance(20.5)
    assert rig.state(job)[0] == "expired"


def test_an_end_that_was_asked_for_stays(rig: Rig) -> None:
    job = rig.submit("quick", expires_at=moment(rig, 30))
    ends = job.expires_at
    assert result_of(change(rig, job, timeouts={"total": 100})).expires_at == ends
    assert result_of(change(rig, job, timeouts={"total": None})).expires_at == ends


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"labels": {"1bad": "x"}}, "/labels/1bad"),
        ({"labels": {f"k{n}": "x" for n in range(17)}}, "/labels"),
        ({"timeouts": {"total": 0.5}}, "/timeouts/total"),
        ({"timeouts": {"total": 5}}, "/timeouts/total"),
        ({"run_at": "2099-01-01T00:00:00Z"}, "/run_at"),
        ({"run_at": "0001-01-01T00:00:00+14:00"}, "/run_at"),  # before the first year
    ],
)
def test_a_wrong_field_is_named(rig: Rig, fields: dict[str, Any], pointer: str) -> None:
    """With its pointer; nothing has changed."""
    job = rig.submit("quick", delay_s=10)
    rig.clock.advance(1)
    error = error_of(change(rig, job, **fields))
    assert error.code == "invalid_field"
    assert error.context["errors"][0]["pointer"] == pointer
    assert rig.get(job).revision == 1


def test_a_moment_behind_the_end_is_refused(rig: Rig) -> None:
    job = rig.submit("quick", delay_s=10, expires_at=moment(rig, 30))
    error = error_of(change(rig, job, run_at=moment(rig, 40)))
    assert error.context["errors"][0]["pointer"] == "/run_at"


# -- races


def test_a_claim_that_is_faster_wins(slow: tuple[Rig, PumpedStore]) -> None:
    """The write finds a running job: stale for who named a revision, conflict for who did not."""
    rig, store = at_once(slow)
    first, second = rig.submit("quick"), rig.submit("quick")
    store.held = True
    stale = change(rig, first, priority=5)
    anyhow = rig.engine.change(second.id, "default", Patch(priority=5), None)
    rig.worker("cpu")
    assert store.kinds == ["change", "change", "claim"]
    store.waiting.sort(key=lambda call: call[0].kind)  # the claims of a group go before
    store.settle_down()
    codes = {error.code for error in (error_of(stale),)}
    assert codes == {"stale"}
    assert result_of(anyhow).priority == 5  # one slot: only the first was claimed
    assert rig.get(first).priority == 0


def test_two_changes_under_one_revision(slow: tuple[Rig, PumpedStore]) -> None:
    """One of them is told that it is stale; no change is lost unseen."""
    rig, store = at_once(slow)
    job = rig.submit("quick")
    store.held = True
    one, two = change(rig, job, priority=5), change(rig, job, priority=6)
    store.settle_down()
    assert result_of(one).priority == 5
    assert error_of(two).code == "stale"
    assert rig.get(job).priority == 5


# -- If-Match on the other verbs


def test_cancel_under_a_revision(slow: tuple[Rig, PumpedStore]) -> None:
    """Waiting and running jobs alike; what moves between the look and the write is found."""
    rig, store = at_once(slow)
    job = rig.submit("quick")
    cancel = rig.engine.cancel
    assert error_of(cancel(job.id, "default", "polite", 5.0, frozenset({9}))).code == "stale"
    store.held = True
    racing = change(rig, job, priority=5)
    late = cancel(job.id, "default", "polite", 5.0, frozenset({1}))
    store.waiting.sort(key=lambda call: call[0].kind)
    store._store.group([store.waiting.pop(0)[0]])
    store.settle_down()
    assert error_of(late).code == "stale"
    assert not racing.called
    store.held = False
    assert rig.state(job)[0] == "queued"
    worker = rig.worker()
    assert error_of(cancel(job.id, "default", "polite", 5.0, frozenset({1}))).code == "stale"
    seen, ended = result_of(cancel(job.id, "default", "polite", 5.0, frozenset({rig.get(job).revision})))
    assert (seen.state, ended) == ("stopping", False)
    assert worker.cancels


def test_run_retry_and_delete_under_a_revision(rig: Rig) -> None:
    """Each is done for the revision that is there, and for no other."""
    wrong = frozenset({99})
    job = rig.submit("quick", delay_s=60)
    assert error_of(rig.engine.run_now(job.id, "default", wrong)).code == "stale"
    assert result_of(rig.engine.run_now(job.id, "default", frozenset({1}))).state == "queued"
    worker = rig.worker()
    worker.succeed(job)
    right = frozenset({rig.get(job).revision})
    assert error_of(rig.engine.retry(job.id, "default", wrong)).code == "stale"
    assert result_of(rig.engine.retry(job.id, "default", right)).rerun_of == job.id
    assert error_of(rig.engine.delete(job.id, "default", wrong)).code == "stale"
    result_of(rig.engine.delete(job.id, "default", right))
    assert error_of(rig.engine.get(job.id, "default")).code == "not_found"
