"""Which job goes to which worker, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobsvc.model.frames import Start
from tests.engine.fakes import PumpedStore, Rig, error_of, result_of

if TYPE_CHECKING:
    from tests.conftest import FlushFailures

Slow = tuple[Rig, PumpedStore]


# -- at submit -------------------------------------------------------------------------------------------------------


def test_a_job_is_placed_by_its_insert_and_sent_only_after_the_commit(slow: Slow) -> None:
    """No worker hears of a job before it is on the disk; the claim costs no write of its own."""
    rig, store = slow
    worker = rig.worker()
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    assert store.kinds == ["submit"]
    assert worker.sent == []
    store.pump()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    assert submitted.job.state == "running"
    assert [(m.task, m.body, m.attempt, m.epoch) for m in worker.sent if isinstance(m, Start)] == [
        ("add", b'{"a":1}', 1, 1)
    ]
    assert store.waiting == []


def test_the_walk_of_one_job(rig: Rig) -> None:
    """Submitted, run, settled; whoever waits is told, and every slot is free again."""
    worker = rig.worker()
    job = rig.submit("add", {"a": 1, "b": 2})
    waiting = rig.engine.wait(job.id, "default", 60)
    worker.begin(job)
    assert not waiting.called
    rig.clock.advance(0.5)
    worker.succeed(job, b"3")
    done = result_of(waiting)
    assert (done.state, done.result, done.error, done.attempt, done.epoch) == ("succeeded", b"3", None, 1, 1)
    assert done.finished_at == rig.now_us()
    stored = result_of(rig.store.get(job.id))
    assert stored is not None
    assert (stored.state, stored.result, stored.seq, stored.revision) == ("succeeded", b"3", 3, 3)
    assert rig.states(job) == ["running", "succeeded"]
    assert rig.free()


def test_a_job_without_a_free_slot_is_queued_and_claimed_when_one_frees(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    first, second = rig.submit("thumbnail"), rig.submit("thumbnail")
    assert (first.state, second.state) == ("running", "queued")
    assert worker.tasks == ["thumbnail"]
    worker.succeed(first)
    assert rig.state(second) == ("running", None)
    assert worker.start_of(second).epoch == 1
    assert rig.states(second) == ["running"]


def test_jobs_wait_for_the_first_worker(rig: Rig) -> None:
    jobs = [rig.submit("thumbnail") for _ in range(3)]
    assert [rig.state(job)[0] for job in jobs] == ["queued"] * 3
    worker = rig.worker("io")
    assert [start.id for start in worker.handed.values()] == [job.id for job in jobs]


def test_a_new_job_does_not_overtake_what_is_queued(rig: Rig) -> None:
    """A slot that frees belongs to those who wait, even when a submit comes in the same moment."""
    worker = rig.worker("io", {"thread": 1})
    first, second, third = (rig.submit("thumbnail") for _ in range(3))
    worker.succeed(first)
    fourth = rig.submit("thumbnail")
    assert worker.has(second)
    worker.succeed(second)
    worker.succeed(third)
    assert rig.state(fourth)[0] == "running"


def test_larger_priorities_go_first_then_older_jobs(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    running = rig.submit("thumbnail")
    jobs = {priority: rig.submit("thumbnail", priority=priority) for priority in (0, -5, 10, 3)}
    again = rig.submit("stubborn", priority=10)
    order = []
    worker.succeed(running)
    for _ in range(5):
        [start] = worker.handed.values()
        order.append(start.id)
        worker.succeed(next(job for job in (*jobs.values(), again) if job.id == start.id))
    assert order == [jobs[10].id, again.id, jobs[3].id, jobs[0].id, jobs[-5].id]


def test_jobs_go_to_the_seat_with_the_least_to_do(rig: Rig) -> None:
    first, second = rig.worker("io"), rig.worker("io")
    rig.submit_many("thumbnail", 4)
    assert (len(first.handed), len(second.handed)) == (2, 2)


def test_a_seat_whose_claim_is_on_its_way_takes_no_new_jobs_beside_it(slow: Slow) -> None:
    """The claim may fill every slot, and just after a reload nothing else says that jobs are queued."""
    rig, store = slow
    queued = rig.engine.submit([rig.job("thumbnail")])
    store.settle_down()
    worker = rig.worker("io", {"thread": 1})
    assert store.kinds == ["claim"]
    store.hold_reads = True
    rig.reload(rig.engine.tasks)
    rig.engine.submit([rig.job("thumbnail")])
    store.settle_down()
    assert [start.id for start in worker.handed.values()] == [
        each.job.id for each in result_of(queued) if each.job
    ]
    assert rig.engine.board.seats[worker.id].used["thread"] == 1
    store.hold_reads = False
    store.pump_reads()
    store.settle_down()
    assert len(worker.handed) == 1


def test_a_job_prepared_before_a_reload_that_took_its_task_away_waits(rig: Rig) -> None:
    rig.worker()
    job = rig.job("add", {"a": 1})
    rig.reload({name: spec for name, spec in rig.engine.tasks.items() if name != "add"})
    [answer] = result_of(rig.engine.submit([job]))
    assert answer.job is not None
    assert rig.state(answer.job) == ("queued", "no_such_task")


def test_a_worker_gets_nothing_that_it_lacks(rig: Rig) -> None:
    """Jobs of a broken module wait, with the reason; they hold up no other ones, and run where it is loaded."""
    poor = rig.worker(lacks={"add"})
    waiting = rig.submit("add", {"a": 1})
    assert rig.state(waiting) == ("queued", "module_broken")
    other = rig.submit("quick")
    assert poor.has(other)
    assert rig.get(other).epoch == 1
    poor.succeed(other)
    assert poor.handed == {}
    whole = rig.worker()
    assert whole.has(waiting)
    assert rig.get(waiting).reason is None


# -- caps ------------------------------------------------------------------------------------------------------------


def test_concurrency_caps_what_runs_at_once(rig: Rig) -> None:
    worker = rig.worker("io")
    first, second = rig.submit("single"), rig.submit("single")
    other = rig.submit("thumbnail")
    assert worker.tasks == ["single", "thumbnail"]
    assert rig.state(second)[0] == "queued"
    worker.succeed(other)
    assert rig.state(second)[0] == "queued"
    worker.fail(first)
    assert rig.state(second)[0] == "running"


def test_two_seats_that_claim_at_once_do_not_pass_a_cap_together(slow: Slow) -> None:
    rig, store = slow
    rig.engine.submit([rig.job("pair") for _ in range(6)])
    store.settle_down()
    workers = [rig.worker() for _ in range(4)]
    assert store.kinds.count("claim") == 2  # a cap of two: the other seats have nothing to ask for
    store.settle_down()
    assert sum(len(worker.handed) for worker in workers) == 2
    assert rig.engine.board.running["pair"] == 2


def test_a_cap_that_frees_on_one_worker_lets_another_go_on(rig: Rig) -> None:
    """Whatever ended the attempt: here the death of its worker, after which it must not run again."""
    dying, other = rig.worker("io", {"thread": 1}), rig.worker("io", {"thread": 1})
    first = rig.submit("single", on_lost="fail")
    second = rig.submit("single")
    assert dying.tasks == ["single"]
    dying.begin(first)
    dying.lose()
    assert rig.state(first)[0] == "failed"
    assert other.tasks == ["single"]
    assert rig.state(second)[0] == "running"


def test_the_cap_of_a_given_up_thread_is_free_when_its_worker_is_dead(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("lone")
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job)[0] == "failed"
    second = rig.submit("lone")
    assert rig.state(second)[0] == "queued"  # its thread still runs
    worker.lose()
    other = rig.worker("io")
    assert other.tasks == ["lone"]
    other.succeed(second)
    assert rig.free()


# -- prefetch --------------------------------------------------------------------------------------------------------


def test_a_task_not_yet_timed_has_nothing_ahead(rig: Rig) -> None:
    worker = rig.worker()
    jobs = rig.submit_many("quick", 5)
    assert len(worker.handed) == 1
    worker.succeed(jobs[0], run_s=0.00001)
    assert len(worker.handed) == 4


def test_quick_jobs_are_prefetched_up_to_a_bound(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.00001)
    jobs = rig.submit_many("quick", 300)
    assert len(worker.handed) == 257  # one runs, 256 ahead
    assert all(start.quick for start in worker.handed.values())
    for job in jobs[:129]:
        worker.succeed(job, run_s=0.00001)
    assert len(worker.handed) == 300 - 129


@pytest.mark.parametrize(("run_s", "handed"), [(0.0001, 200), (0.010, 3), (0.020, 2), (0.050, 2), (0.051, 1)])
def test_what_is_ahead_is_twenty_milliseconds_of_work_or_one_short_job(
    rig: Rig, run_s: float, handed: int
) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", run_s)
    rig.submit_many("quick", 300)
    assert len(worker.handed) == handed


def test_what_must_not_run_twice_is_never_prefetched(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "once", 0.00001)
    rig.submit_many("once", 3)
    assert len(worker.handed) == 1


def test_short_jobs_do_not_pass_a_long_one_for_ever(rig: Rig) -> None:
    """A worker full of short jobs is not refilled while one waits that needs it for itself."""
    worker = rig.worker()
    rig.timed(worker, "quick", 0.00001)
    short = rig.submit_many("quick", 600)
    long = rig.submit("add", {"a": 1}, priority=10)
    for job in short[:257]:
        assert rig.state(long)[0] == "queued"
        worker.succeed(job, run_s=0.00001)
    assert rig.state(long)[0] == "running"
    assert list(worker.handed.values())[-1].id == long.id  # and nothing waits behind it


def test_what_waits_behind_a_job_that_takes_too_long_goes_to_others(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.001)
    jobs = rig.submit_many("quick", 10)
    worker.begin(jobs[0], frame=False)
    assert len(worker.handed) == 10
    rig.clock.advance(0.05)
    assert worker.recalls == 0
    rig.clock.advance(0.2)
    rig.clock.advance(0.2)
    assert worker.recalls == 1
    worker.give_back(*jobs[1:])
    assert [rig.state(job) for job in jobs[1:]] == [("queued", "recalled")] * 9
    assert len(worker.handed) == 1  # it gets none of them back while that one runs
    other = rig.worker()
    assert len(other.handed) == 9
    assert {start.attempt for start in other.handed.values()} == {1}  # a recall counts for nothing
    worker.succeed(jobs[0], run_s=0.3)
    late = rig.submit("add", {"a": 1})
    assert worker.has(late)


def test_timed_jobs_are_not_quick(rig: Rig) -> None:
    """Their begin must be told, since the timeout counts from it."""
    worker = rig.worker()
    rig.timed(worker, "quick", 0.00001)
    rig.submit("quick", timeouts={"run": 1})
    assert [start.quick for start in worker.handed.values()] == [False]
    assert [start.run_s for start in worker.handed.values()] == [1.0]


# -- when the store says no ------------------------------------------------------------------------------------------


def test_a_claim_that_finds_the_disk_full_is_made_again(slow: Slow, flush_failures: FlushFailures) -> None:
    """The store tells that the disk is full; not every claim does."""
    rig, store = slow
    rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    worker = rig.worker()
    store.fail_next()
    store.pump()
    assert worker.handed == {}
    assert flush_failures() == []
    rig.clock.advance(1)
    store.settle_down()
    assert worker.tasks == ["add"]


def test_a_submit_that_fails_gives_its_slot_back(slow: Slow) -> None:
    rig, store = slow
    worker = rig.worker()
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.fail_next()
    store.pump()
    assert error_of(answer).code == "disk_full"
    assert worker.handed == {}
    assert rig.free()


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_limited_attempt_is_alone_in_its_worker(rig: Rig) -> None:
    """Nothing waits behind it and it waits behind nothing, however short the tasks: its limits are the worker's."""
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    rig.timed(worker, "small", 0.0001)
    limited = rig.submit("small")
    behind = rig.submit_many("quick", 5) + rig.submit_many("small", 2)
    assert worker.tasks == ["small"]
    assert [rig.state(job)[0] for job in behind] == ["queued"] * 7
    worker.succeed(limited)
    done = 0
    while worker.handed:
        assert "small" not in worker.tasks or worker.tasks == ["small"]
        [start, *_] = worker.handed.values()
        worker.succeed(next(job for job in behind if job.id == start.id))
        done += 1
    assert done == 7
    assert rig.free()


def test_a_limited_attempt_is_not_handed_to_a_worker_that_is_busy(rig: Rig) -> None:
    """In one submit with others, and when it is claimed."""
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    jobs = [rig.job("quick"), rig.job("small"), rig.job("quick")]
    rig.engine.submit(jobs)
    assert "small" not in worker.tasks
    handed = list(worker.tasks)
    while worker.handed:
        [start, *_] = worker.handed.values()
        worker.succeed(next(job for job in map(rig.get, jobs) if job.id == start.id))
        assert "small" not in worker.tasks or worker.tasks == ["small"]
        handed += worker.tasks
    assert "small" in handed
    assert rig.free()
