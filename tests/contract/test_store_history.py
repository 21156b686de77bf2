"""The contract of a store: lists, removal, and what a start makes of interrupted jobs. Every store has to pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from jobsvc.model.events import Attempt
from jobsvc.model.job import Job
from jobsvc.model.limits import INLINE_MAX_BYTES
from jobsvc.model.task import Policy
from jobsvc.ports import JobFilter, Recovered
from tests.contract.store_harness import NOW, Held, end_of, job_of, new_id, step_of
from tests.contract.test_store_events import append_of

LARGE = b'"' + b"x" * INLINE_MAX_BYTES + b'"'


# -- reads


def test_one_job_or_none(held: Held) -> None:
    """Texts that are not asked for are left out."""
    job = held.running(args=b"[1]")
    held(held.store.settle([end_of(job, result=b"[2]")]))
    short = held(held.store.get(job.id, args=False, result=False))
    assert short is not None
    assert (short.args, short.result, short.state) == (None, None, "succeeded")
    assert held(held.store.get(new_id())) is None


def test_many_jobs_by_id(held: Held) -> None:
    """In full, those that are there, however many are asked for."""
    jobs = held.submitted(*(job_of() for _ in range(300)), job_of(args=LARGE))
    found = held(held.store.get_many([job.id for job in jobs] + [new_id()]))
    assert found == {job.id: job for job in jobs}
    assert held(held.store.get_many([])) == {}


def test_which_of_many_are_done(held: Held) -> None:
    """Of one tenant's, however many are asked for; the others are as if they were not there."""
    ended, running = held.running(), held.running()
    held(held.store.settle([end_of(ended)]))
    waiting = held.submitted(*(job_of() for _ in range(300)))
    [other] = held.submitted(job_of(tenant="acme"))
    ids = [ended.id, running.id, *(job.id for job in waiting), other.id, new_id()]
    expected = {job_id: job_id == ended.id for job_id in ids[:-2]}
    assert held(held.store.done(ids, "default")) == expected
    assert held(held.store.done([], "default")) == {}


def test_jobs_by_their_keys(held: Held) -> None:
    """Of one tenant; without what is long."""
    jobs = held.submitted(*(job_of(key=f"k{n}", key_hash=bytes(32)) for n in range(300)))
    held.submitted(job_of(key="k1", key_hash=bytes(32), tenant="acme"))
    found = held(held.store.by_keys("default", [f"k{n}" for n in range(310)]))
    assert {key: job.id for key, job in found.items()} == {job.key: job.id for job in jobs}
    assert (found["k1"].args, found["k1"].key_hash) == (None, bytes(32))


@dataclass
class Listed:
    held: Held
    jobs: list[Job] = field(default_factory=list)

    def places(self, **wanted: Any) -> list[int]:
        """Which of the jobs a filter gives, by their place in `jobs`."""
        by_id = {job.id: place for place, job in enumerate(self.jobs)}
        return [by_id[job.id] for job in self.held(self.held.store.list(JobFilter(**wanted))).jobs]


@pytest.fixture
def listed(held: Held) -> Listed:
    jobs = held.submitted(
        job_of(labels=b'{"env":"prod","team":"a"}', queue="slow"),
        job_of(labels=b'{"env":"prod"}', task="other"),
        job_of(labels=b'{"env":"test"}', tenant="acme", created_at=NOW + 5),
        job_of(state="scheduled", due_at=NOW + 50, created_at=NOW + 6),
    )
    return Listed(held, jobs)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({}, [3, 2, 1, 0]),
        ({"ascending": True}, [0, 1, 2, 3]),
        ({"limit": 2}, [3, 2]),
        ({"states": ("queued", "running")}, [2, 1, 0]),
        ({"states": ("failed",)}, []),
        ({"task": "other"}, [1]),
        ({"queue": "slow"}, [0]),
        ({"tenant": "acme"}, [2]),
        ({"since": NOW + 5}, [3, 2]),
        ({"labels": {"env": "prod"}}, [1, 0]),
        ({"labels": {"env": "prod", "team": "a"}}, [0]),
        ({"labels": {'env"': "prod"}}, []),
        ({"labels": {"env": "prod"}, "task": "count", "states": ("queued",)}, [0]),
    ],
)
def test_lists_are_filtered(listed: Listed, wanted: dict[str, Any], places: list[int]) -> None:
    """All conditions together, newest first unless asked otherwise."""
    assert listed.places(**wanted) == places


@pytest.mark.parametrize("ascending", [True, False])
def test_a_cursor_is_stable(held: Held, *, ascending: bool) -> None:
    """Pages follow each other without gap or repeat, also when jobs come in between."""
    jobs = held.submitted(*(job_of() for _ in range(7)))
    seen: list[bytes] = []
    cursor = None
    while page := held(held.store.list(JobFilter(cursor=cursor, ascending=ascending, limit=3))).jobs:
        seen += [job.id for job in page]
        cursor = page[-1].no
        if len(seen) == 3 and not ascending:
            held.submitted(job_of())
    assert seen == [job.id for job in (jobs if ascending else jobs[::-1])]


def test_lists_leave_out_texts_unless_asked(held: Held) -> None:
    """Large ones too come only when asked for."""
    job = held.running(args=LARGE)
    held(held.store.settle([end_of(job, result=b"[2]")]))
    (short,) = held(held.store.list(JobFilter())).jobs
    (full,) = held(held.store.list(JobFilter(args=True, result=True))).jobs
    assert (short.args, short.result) == (None, None)
    assert (full.args, full.result) == (LARGE, b"[2]")


# -- removal


def test_only_final_jobs_are_deleted(held: Held) -> None:
    """With all that belongs to them."""
    job = held.running(args=LARGE, key="k", key_hash=b"1")
    held(held.store.append([append_of(job, 3)]))
    record = Attempt(
        epoch=1, attempt=1, state="lost", began_at=None, finished_at=NOW, worker=None, error=None
    )
    held(held.store.step([step_of(job, "queued", seq=4, record=record)]))
    assert held(held.store.delete(job.id)) is False
    (again,) = held.claimed()
    assert held(held.store.delete(job.id)) is False
    held(held.store.settle([end_of(again, result=LARGE)]))
    assert held(held.store.delete(job.id)) is True
    assert held(held.store.get(job.id)) is None
    assert held.chunks(job) == []
    assert held(held.store.attempts(job.no)) == []
    assert held(held.store.by_key("default", "k")) is None
    assert held(held.store.delete(job.id)) is False


def test_a_number_is_never_given_twice(held: Held) -> None:
    """Also when the newest job is gone: events and cursors go by it."""
    job = held.running()
    held(held.store.settle([end_of(job)]))
    held(held.store.delete(job.id))
    (after,) = held.submitted(job_of())
    assert after.no > job.no


def test_retention_takes_the_oldest_ends(held: Held) -> None:
    """Those that ended before a moment, at most so many at a time; waiting and running jobs stay."""
    ended = [held.running(args=LARGE) for _ in range(5)]
    held(held.store.settle([end_of(job, finished_at=NOW + 100 - place) for place, job in enumerate(ended)]))
    held.running()
    held.submitted(job_of())
    assert held(held.store.purge(NOW + 99, 2)) == 2
    assert [held(held.store.get(job.id)) is None for job in ended] == [False, False, False, True, True]
    assert held(held.store.purge(NOW + 99, 10)) == 1
    assert held(held.store.purge(NOW + 99, 10)) == 0
    assert held(held.store.purge(NOW + 500, 10)) == 2
    assert len(held(held.store.list(JobFilter())).jobs) == 2


# -- start


def test_nothing_to_recover(held: Held) -> None:
    """Waiting and final jobs stay as they are."""
    (job,) = held.submitted(job_of())
    assert held(held.store.recover(NOW + 60)) == Recovered()
    assert held.row(job) == job


def test_interrupted_jobs_are_queued_again(held: Held) -> None:
    """Not counted as an attempt or a loss, with a record, and claimable at once."""
    job = held.running()
    held(held.store.append([append_of(job, 3, b"1\n2\n3", stream="out", n=1)]))
    timed_out = held.running()
    held(held.store.step([step_of(timed_out, "stopping", reason="timeout")]))
    assert held(held.store.recover(NOW + 60)) == Recovered(queued=2)
    row = held.row(job)
    assert (row.state, row.reason, row.owner, row.attempt, row.epoch, row.losses) == (
        "queued",
        "lost",
        None,
        0,
        1,
        0,
    )
    assert held.event_numbers(job) == [2, 3, 4, 5, 6]
    assert held.event_numbers(timed_out) == [2, 3, 4]
    (record,) = held(held.store.attempts(job.no))
    assert (record.epoch, record.attempt, record.state, record.finished_at) == (1, 1, "lost", NOW + 60)
    assert record.worker == "cpu-1"
    assert msgspec.json.decode(record.error or b"")["kind"] == "lost"
    assert held(held.store.settle([end_of(job)])) == [False]
    assert [(again.id, again.epoch, again.attempt) for again in held.claimed()] == [
        (job.id, 2, 1),
        (timed_out.id, 2, 1),
    ]


def test_a_job_that_must_not_run_twice_is_lost(held: Held) -> None:
    """By `on_lost=fail`, also while it was being stopped for a timeout."""
    policy = msgspec.json.encode(Policy(on_lost="fail"))
    running, stopping = held.running(policy=policy), held.running(policy=policy)
    held(held.store.step([step_of(stopping, "stopping", reason="timeout")]))
    assert held(held.store.recover(NOW + 60)) == Recovered(failed=2)
    for job, numbers in ((running, [2, 3]), (stopping, [2, 3, 4])):
        row = held.row(job)
        assert (row.state, row.reason, row.finished_at, row.attempt) == ("failed", "lost", NOW + 60, 1)
        error = msgspec.json.decode(row.error or b"")
        assert error["kind"] == "lost"
        assert error["where"] == {"executor": "process", "worker": "cpu-1", "attempt": 1, "epoch": 1}
        assert held.event_numbers(job) == numbers
    assert held.claimed() == []


def test_a_cancel_that_was_asked_holds(held: Held) -> None:
    """The daemon's death has stopped the code; it is not run again."""
    job = held.running(policy=msgspec.json.encode(Policy(on_lost="fail")))
    held(held.store.step([step_of(job, "stopping", reason="cancel_asked")]))
    assert held(held.store.recover(NOW + 60)) == Recovered(cancelled=1)
    row = held.row(job)
    assert (row.state, row.reason) == ("cancelled", "cancel_asked")
    assert msgspec.json.decode(row.error or b"")["kind"] == "cancelled"
    assert held.event_numbers(job) == [2, 3, 4]


def test_a_retry_that_waited_for_a_thread_need_not_wait(held: Held) -> None:
    """The thread ended with the daemon: the timer queues the job at once."""
    job, other = held.running(), held.running()
    held(held.store.step([step_of(job, "retrying", reason="orphan_running", due_at=None)]))
    held(held.store.step([step_of(other, "retrying", reason="retry", due_at=NOW + 999)]))
    assert held(held.store.recover(NOW + 60)) == Recovered()
    assert held(held.store.next_due()) == NOW + 60
    assert held(held.store.wake(NOW + 60, 10)) == {"count": 1}
    assert [again.id for again in held.claimed()] == [job.id]


def test_many_interrupted_jobs(held: Held) -> None:
    """However many there are, and a second start finds nothing more."""
    jobs = held.submitted(*(job_of() for _ in range(400)))
    assert len(held.claimed(limit=1000)) == 400
    assert held(held.store.recover(NOW + 60)) == Recovered(queued=400)
    assert held(held.store.recover(NOW + 61)) == Recovered()
    assert held(held.store.queued()) == {"count": 400}
    assert held.event_numbers(jobs[-1]) == [2, 3]


def test_many_rows_within_a_bound(held: Held) -> None:
    """Large texts come as far as there is room, at least one; the row itself always does."""
    jobs = held.submitted(*(job_of(args=b'"%s"' % (b"x" * size)) for size in (10, 50_000, 50_000, 50_000)))
    ids = [job.id for job in jobs]
    for bound, lacking in ((None, []), (1_000_000, []), (110_000, ids[3:]), (0, ids[2:])):
        found = held(held.store.get_many(ids, bound))
        assert [i for i in ids if found[i].lacks_texts] == lacking
    assert [job.id for job in jobs if held(held.store.get_many(ids[::-1], 0))[job.id].lacks_texts] == ids[1:3]


@pytest.mark.parametrize("ascending", [True, False])
def test_a_page_ends_by_its_bytes(held: Held, *, ascending: bool) -> None:
    """Arguments count whether they lie in the row or beside it; the next page goes on; one job is always there."""
    sizes = [10, 100_000, 1_000, 100_000, 300_000, 10]
    jobs = held.submitted(*(job_of(args=b'"%s"' % (b"x" * (size - 2))) for size in sizes))
    pages: list[list[int]] = []
    cursor, more, seen = None, True, []
    while more:
        wanted = JobFilter(cursor=cursor, ascending=ascending, limit=10, max_bytes=150_000, args=True)
        rows, more = held(held.store.list(wanted))
        pages.append([len(job.args or b"") for job in rows])
        seen += [job.id for job in rows]
        cursor = rows[-1].no
    assert seen == [job.id for job in (jobs if ascending else jobs[::-1])]
    if ascending:
        assert pages == [[10, 100_000, 1_000], [100_000], [300_000], [10]]
    else:
        assert pages == [[10], [300_000], [100_000, 1_000], [100_000, 10]]
    assert held(held.store.list(JobFilter(limit=10, max_bytes=1))).more is False  # no texts were asked for
