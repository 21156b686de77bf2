"""The contract of a store: jobs come in, are claimed, change and end. Every store has to pass."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc.model.events import Attempt, state_data
from jobsvc.model.job import ARGS_LARGE, RESULT_LARGE
from jobsvc.model.limits import INLINE_MAX_BYTES
from jobsvc.model.states import State
from jobsvc.ports import Claim, JobFilter
from tests.contract.store_harness import NOW, Held, end_of, job_of, new_id, step_of

LARGE = b'"' + b"x" * INLINE_MAX_BYTES + b'"'


# -- submit


def test_empty_lists_are_answered_with_empty_lists(held: Held) -> None:
    """Nothing asked, nothing done."""
    store = held.store
    assert held(store.submit([])) == []
    assert held(store.append([])) == []
    assert held(store.settle([])) == []
    assert held(store.step([])) == []
    assert held(store.move([])) == []
    assert held(store.claim([])) == []


def test_a_job_comes_back_as_it_was_given(held: Held) -> None:
    """Every field of a submitted job is kept."""
    given = job_of(
        tenant="acme", queue="slow", priority=7, state="scheduled", reason="run_at", run_at=NOW + 5, due_at=NOW + 5,
        expires_at=NOW + 9, policy=b'{"max_attempts":3}', labels=b'{"a":"\xc3\xa9"}', args=b'["\xc3\xa9"]',
        key="k\x00\xe9", key_hash=b"\x00" * 32, parent=new_id(), rerun_of=new_id(),
        request_id="r-1", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )  # fmt: skip
    (stored,) = held.submitted(given)
    assert stored is given
    assert stored.no > 0
    assert held.row(stored) == given


def test_jobs_are_numbered_in_order(held: Held) -> None:
    """Numbers grow in the order of the list, also where some jobs are unlike the others."""
    jobs = held.submitted(
        job_of(), job_of(labels=b'{"a":"b"}'), job_of(args=LARGE), job_of(), job_of(args=None)
    )
    assert [job.no for job in jobs] == sorted({job.no for job in jobs})
    for job in jobs:
        assert held.row(job) == job


def test_more_jobs_than_one_statement_holds(held: Held) -> None:
    """Any number of jobs is stored, claimed and settled in one call."""
    jobs = held.submitted(*(job_of(args=b"%d" % i) for i in range(700)))
    claimed = held.claimed(limit=1000)
    assert [job.args for job in claimed] == [job.args for job in jobs]
    assert held(held.store.settle([end_of(job) for job in claimed])) == [True] * 700
    assert {held.row(job).state for job in jobs[::50]} == {"succeeded"}


def test_large_arguments_lie_beside_the_row(held: Held) -> None:
    """They come when they are asked for, and with a claim."""
    (job,) = held.submitted(job_of(args=LARGE))
    assert job.large == ARGS_LARGE
    assert held.row(job).args == LARGE
    short = held(held.store.get(job.id, args=False))
    assert short is not None
    assert short.args is None
    assert short.large == ARGS_LARGE
    (claimed,) = held.claimed()
    assert claimed.args == LARGE


def test_a_key_gives_the_same_job_again(held: Held) -> None:
    """Same key and body: the stored job; same key, other body: refused; other tenant: another job."""
    (first,) = held.submitted(job_of(key="k", key_hash=b"1"))
    again, other, foreign = held(
        held.store.submit(
            [
                job_of(key="k", key_hash=b"1"),
                job_of(key="k", key_hash=b"2"),
                job_of(key="k", key_hash=b"1", tenant="b"),
            ]
        )
    )
    assert again.replayed
    assert again.job == first
    assert other.job is None
    assert not foreign.replayed
    assert foreign.job is not None
    assert foreign.job.id != first.id
    assert held(held.store.by_key("default", "k")) == first
    assert held(held.store.by_key("default", "nobody")) is None


def test_one_key_twice_in_one_list(held: Held) -> None:
    """The second is answered from the first, which is not stored yet."""
    first, again, other, plain = held(
        held.store.submit(
            [
                job_of(key="k", key_hash=b"1"),
                job_of(key="k", key_hash=b"1"),
                job_of(key="k", key_hash=b"2"),
                job_of(),
            ]
        )
    )
    assert not first.replayed
    assert again.replayed
    assert again.job == first.job
    assert again.job is not first.job
    assert other.job is None
    assert plain.job is not None
    assert len(held(held.store.list(JobFilter())).jobs) == 2


def test_a_replay_shows_what_has_become_of_the_job(held: Held) -> None:
    """A key repeated after the end gives the outcome."""
    job = held.running(key="k", key_hash=b"1")
    held(held.store.settle([end_of(job, result=LARGE)]))
    (again,) = held(held.store.submit([job_of(key="k", key_hash=b"1")]))
    assert again.job is not None
    assert again.job.state == "succeeded"
    assert again.job.result == LARGE


def test_submit_and_claim_in_one(held: Held) -> None:
    """A job submitted as running is just what submit and claim would have made of it."""
    at_once = job_of(
        state="running",
        owner="cpu-1",
        epoch=1,
        attempt=1,
        seq=2,
        revision=2,
        claim_seq=2,
        claimed_at=NOW + 10,
    )
    held.submitted(at_once)
    later = held.running()
    later.id, later.no = at_once.id, at_once.no
    assert held.row(at_once) == later
    assert held(held.store.settle([end_of(at_once)])) == [True]


# -- claim


def test_claims_take_the_largest_priority_then_the_oldest(held: Held) -> None:
    """Over all wanted tasks together, in the order in which they are to run."""
    a, b, c, d, e = held.submitted(
        job_of(task="one"), job_of(task="two", priority=5), job_of(task="two"), job_of(task="one", priority=5),
        job_of(task="one", priority=-1),
    )  # fmt: skip
    (jobs,) = held(held.store.claim([Claim("w", "thread", {"one": 9, "two": 9}, 9, NOW)]))
    assert [job.no for job in jobs] == [b.no, d.no, a.no, c.no, e.no]


def test_claims_keep_to_their_limits(held: Held) -> None:
    """Never more than `limit`, never more of a task than wanted, never a task that is not wanted."""
    held.submitted(*(job_of(task=task) for task in ["one"] * 90 + ["two"] * 90 + ["three"]))
    first, second, none = held(
        held.store.claim(
            [
                Claim("w", "thread", {"one": 50, "two": 70}, 100, NOW),
                Claim("x", "thread", {"one": 90, "two": 3, "four": 5}, 90, NOW),
                Claim("y", "thread", {"one": 0}, 10, NOW),
            ]
        )
    )
    assert [sum(job.task == task for job in first) for task in ("one", "two")] == [50, 50]
    assert [sum(job.task == task for job in second) for task in ("one", "two")] == [40, 3]
    assert none == []
    assert held(held.store.queued()) == {"two": 37, "three": 1}


def test_a_claimed_job_is_the_stored_one(held: Held) -> None:
    """What a claim returns equals the row, whether the store still remembered the job or had to read it."""
    held.submitted(job_of(), job_of(labels=b'{"a":"b"}', progress=b'{"n":1}'))
    for job in held.claimed():
        assert job == held.row(job)
        assert (job.state, job.epoch, job.attempt, job.owner, job.executor) == (
            "running",
            1,
            1,
            "cpu-1",
            "process",
        )
        assert (job.seq, job.revision, job.claim_seq, job.claimed_at) == (2, 2, 2, NOW + 10)
        assert held.chunks(job) == []


def test_a_later_claim_writes_its_event(held: Held) -> None:
    """Only the first claim is derived from the row."""
    job = held.running()
    held(held.store.step([step_of(job, "queued", reason="drained", attempt=0)]))
    (again,) = held.claimed(owner="cpu-2", at=NOW + 50)
    assert (again.epoch, again.attempt, again.claim_seq, again.claimed_at) == (2, 1, 2, NOW + 10)
    assert again == held.row(again)
    last = held.chunks(again)[-1]
    assert (last.seq, last.kind, last.epoch, last.at) == (again.seq, "state", 2, NOW + 50)
    assert last.body == state_data("running", None, 1, 2, again.revision)
    assert held.event_numbers(again) == [2, 3, 4]


def test_the_callers_job_is_not_the_stores(held: Held) -> None:
    """What the caller does with a job it has submitted does not change what a claim returns."""
    (job,) = held.submitted(job_of(args=b"[1]"))
    job.args, job.priority = b"[2]", 50
    (claimed,) = held.claimed()
    assert (claimed.args, claimed.priority) == (b"[1]", 0)
    assert claimed is not job


# -- outcomes


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("succeeded", {"result": b'{"a":1}'}),
        ("succeeded", {"result": LARGE}),
        ("succeeded", {"result": b"1", "losses": 2}),
        ("failed", {"reason": "lost", "losses": 3, "error": b'{"kind":"lost"}'}),
    ],
)
def test_an_outcome_is_recorded(held: Held, state: State, fields: dict[str, Any]) -> None:
    """Everything of it is in the row, and its event is derived."""
    job = held.running(args=LARGE)
    end = end_of(job, state, **fields)
    assert held(held.store.settle([end])) == [True]
    row = held.row(job)
    assert (row.state, row.reason, row.losses) == (state, end.reason, end.losses)
    assert (row.result, row.error) == (end.result, end.error)
    assert (row.started_at, row.finished_at) == (end.started_at, end.finished_at)
    assert (row.seq, row.revision, row.owner, row.args) == (end.seq, end.revision, "cpu-1", LARGE)
    assert bool(row.large & RESULT_LARGE) == (end.result == LARGE)
    assert held.chunks(job) == []
    assert held.event_numbers(job) == [2, 3]


def test_an_outcome_is_written_once(held: Held) -> None:
    """A second outcome changes nothing, in a later call or in the same."""
    job = held.running()
    first, second = end_of(job, result=b"1"), end_of(job, "failed")
    assert held(held.store.settle([first, second])) == [True, False]
    row = held.row(job)
    assert held(held.store.settle([second])) == [False]
    assert held.row(job) == row
    assert row.result == b"1"


@pytest.mark.parametrize("stale", [{"epoch": 2}, {"owner": "cpu-2"}, {"no": 999}])
def test_a_late_report_is_refused(held: Held, stale: dict[str, Any]) -> None:
    """Alone or among others that are like it, whatever the outcome."""
    job, other, third = held.running(), held.running(), held.running()
    before = held.row(job)
    for end in (end_of(job, **stale), end_of(job, "failed", **stale)):
        assert held(held.store.settle([end])) == [False]
    assert held(held.store.settle([end_of(other), end_of(job, **stale), end_of(third)])) == [
        True,
        False,
        True,
    ]
    assert held.row(job) == before


@pytest.mark.parametrize("stale", [{"epoch": 2}, {"owner": "cpu-2"}, {"no": 999}])
def test_a_late_report_is_refused_and_the_others_are_not(held: Held, stale: dict[str, Any]) -> None:
    """Of one call, what belongs to an older epoch or another worker changes nothing; the rest is recorded."""
    first, second = held.running(), held.running()
    before = held.row(first)
    ends = [end_of(first, **({"result": LARGE} | stale)), end_of(second, result=LARGE)]
    assert held(held.store.settle(ends)) == [False, True]
    assert held.row(first) == before
    assert held.row(second).result == LARGE
    assert held(held.store.settle([end_of(first, result=LARGE)])) == [True]


def test_the_table_of_states_refuses_too(held: Held) -> None:
    """A running job is not cancelled, nor expired: first it has to stop."""
    job = held.running()
    assert held(held.store.settle([end_of(job, "cancelled")])) == [False]
    assert held(held.store.settle([end_of(job, "expired")])) == [False]
    assert held(held.store.step([step_of(job, "stopping", reason="cancel_asked")])) == [True]
    stopping = held.row(job)
    assert held(held.store.settle([end_of(stopping, "expired")])) == [False]
    assert held(held.store.settle([end_of(stopping, "cancelled")])) == [True]
    assert held.event_numbers(job) == [2, 3, 4]


# -- steps


def test_stopping_keeps_the_attempt(held: Held) -> None:
    """The owner stays, the event is stored."""
    job = held.running()
    assert held(held.store.step([step_of(job, "stopping", reason="cancel_asked")])) == [True]
    row = held.row(job)
    assert (row.state, row.reason, row.owner, row.epoch, row.attempt) == (
        "stopping",
        "cancel_asked",
        "cpu-1",
        1,
        1,
    )
    (chunk,) = held.chunks(job)
    assert (chunk.seq, chunk.at, chunk.body) == (3, NOW + 25, state_data("stopping", "cancel_asked", 1, 1, 3))


def test_a_retry_waits_and_remembers_the_attempt(held: Held) -> None:
    """The owner goes, the attempt is a record of its own, and the timer knows when."""
    job = held.running()
    record = Attempt(
        epoch=1,
        attempt=1,
        state="failed",
        began_at=NOW + 11,
        finished_at=NOW + 25,
        worker="cpu-1",
        error=b"{}",
    )
    step = step_of(job, "retrying", reason="retry", due_at=NOW + 99, losses=1, record=record)
    assert held(held.store.step([step])) == [True]
    row = held.row(job)
    assert (row.state, row.owner, row.due_at, row.losses, row.started_at) == (
        "retrying",
        None,
        NOW + 99,
        1,
        None,
    )
    assert held(held.store.attempts(job.no)) == [record]
    assert held(held.store.next_due()) == NOW + 99
    assert held.event_numbers(job) == [2, 3]


def test_a_recalled_job_is_queued_as_if_nothing_had_been(held: Held) -> None:
    """No record, no attempt counted; the older epoch can do nothing any more."""
    job = held.running()
    assert held(held.store.step([step_of(job, "queued", reason="recalled", attempt=0)])) == [True]
    assert held(held.store.attempts(job.no)) == []
    assert held(held.store.settle([end_of(job)])) == [False]
    (again,) = held.claimed()
    assert (again.id, again.epoch, again.attempt) == (job.id, 2, 1)


def test_refused_steps_leave_no_trace(held: Held) -> None:
    """Neither event nor record of a refused step is stored; the others of the call are."""
    first, second = held.running(), held.running()
    record = Attempt(
        epoch=1, attempt=1, state="lost", began_at=None, finished_at=NOW, worker=None, error=None
    )
    steps = [step_of(first, "queued", owner="x", record=record), step_of(second, "queued", record=record)]
    assert held(held.store.step(steps)) == [False, True]
    assert (held.chunks(first), held(held.store.attempts(first.no))) == ([], [])
    assert held.row(first) == first
    assert (len(held.chunks(second)), held(held.store.attempts(second.no))) == (1, [record])


def test_two_steps_of_one_job_in_one_call(held: Held) -> None:
    """They are applied in order."""
    job = held.running()
    first = step_of(job, "stopping", reason="timeout")
    second = step_of(
        job, "retrying", reason="retry", seq=job.seq + 2, revision=job.revision + 2, due_at=NOW + 50
    )
    assert held(held.store.step([first, second])) == [True, True]
    assert held.row(job).state == "retrying"
    assert held.event_numbers(job) == [2, 3, 4]
