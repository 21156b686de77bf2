"""How attempts end and what follows: retries, crashes, losses, late reports."""

from __future__ import annotations

import msgspec
import pytest

from jobsvc.model.errors import Exit, JobError, Kind
from jobsvc.model.events import Attempt
from jobsvc.model.frames import Begin, Items, Log, Progress, Result
from jobsvc.model.limits import LOSSES_MAX, PING_S, STALL_S
from jobsvc.ports import Death
from tests.engine.fakes import FakeWorker, Rig, result_of


def attempts(rig: Rig, job_id: bytes) -> list[Attempt]:
    return result_of(rig.engine.attempts(job_id, "default"))


def kind_of(attempt: Attempt) -> str | None:
    return None if attempt.error is None else msgspec.json.decode(attempt.error, type=JobError).kind


# -- retries ---------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_after_its_backoff_until_they_are_used_up(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky", backoff={"base_s": 2, "max_s": 3})
    worker.begin(job)
    worker.fail(job, message="first")
    assert rig.state(job) == ("retrying", "retry")
    assert rig.get(job).due_at == rig.now_us() + 2_000_000
    rig.clock.advance(1.999)
    assert rig.state(job)[0] == "retrying"
    rig.clock.advance(0.002)
    assert rig.state(job) == ("running", None)
    assert worker.start_of(job).attempt == 2
    worker.fail(job, message="second")
    assert rig.get(job).due_at == rig.now_us() + 3_000_000  # 2 * 2, cut at max_s
    rig.clock.advance(3.001)
    worker.fail(job, message="third")
    done = rig.get(job)
    assert (done.state, done.attempt, done.epoch) == ("failed", 3, 3)
    error = rig.error(job)
    assert (error.kind, error.type, error.message, error.retryable) == (
        "task_error",
        "ValueError",
        "third",
        True,
    )
    assert (error.where.executor, error.where.worker, error.where.attempt) == ("process", worker.id, 3)
    assert rig.states(job) == [
        "running", "retrying", "queued", "running", "retrying", "queued", "running", "failed",
    ]  # fmt: skip
    tries = attempts(rig, job.id)
    assert [(a.epoch, a.attempt, a.state, kind_of(a)) for a in tries] == [
        (1, 1, "failed", "task_error"), (2, 2, "failed", "task_error"), (3, 3, "failed", "task_error"),
    ]  # fmt: skip
    assert rig.free()


@pytest.mark.parametrize("kind", ["rejected", "not_serialisable", "too_large", "conflict", "would_deadlock"])
def test_kinds_that_would_end_the_same_way_are_not_tried_again(rig: Rig, kind: Kind) -> None:
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.fail(job, kind)
    assert rig.state(job)[0] == "failed"
    assert (rig.error(job).kind, rig.error(job).retryable) == (kind, False)


def test_without_retries_the_first_failure_is_the_end(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.fail(job)
    assert rig.state(job) == ("failed", None)


def test_a_task_that_cancels_itself_has_failed(rig: Rig) -> None:
    """`cancelled` is for jobs that someone cancelled."""
    worker = rig.worker("io")
    job = rig.submit("fetch")
    worker.fail(job, "cancelled", "")
    assert rig.state(job)[0] == "failed"
    assert (rig.error(job).kind, rig.error(job).message) == ("task_error", "the task cancelled itself")


# -- deaths of workers -----------------------------------------------------------------------------------------------


def test_a_crash_counts(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.begin(job)
    worker.crash()
    assert rig.state(job) == ("retrying", "retry")
    job2 = rig.submit("add", {"a": 1})
    second = rig.worker()
    second.begin(job2)
    second.crash()
    error = rig.error(job2)
    assert (error.kind, error.exit) == ("crashed", Exit(signal=11, name="SIGSEGV"))
    assert error.message == "the worker process was ended by SIGSEGV"


def test_an_exit_by_the_task_is_a_crash_with_its_status(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    worker.die(Death("exit", Exit(code=3)))
    assert (rig.error(job).message, rig.error(job).exit) == (
        "the worker process exited with status 3",
        Exit(code=3),
    )


def test_the_begin_mark_names_who_ran_and_the_others_run_again_uncounted(rig: Rig) -> None:
    worker = rig.worker()
    rig.timed(worker, "quick", 0.0001)
    first, second, third = rig.submit_many("quick", 3)
    worker.begin(first, frame=False)
    worker.crash()
    assert (rig.state(first)[0], rig.error(first).kind) == ("failed", "crashed")
    for job in (second, third):
        assert rig.state(job) == ("queued", "recalled")
        assert rig.get(job).attempt == 0
        assert attempts(rig, job.id) == []


def test_a_lost_worker_costs_no_attempt_and_the_job_runs_again_at_once(rig: Rig) -> None:
    worker = rig.worker()
    other = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    worker.lose()
    assert rig.state(job)[0] == "running"
    assert other.start_of(job).attempt == 1
    assert other.start_of(job).epoch == 2
    first, second = attempts(rig, job.id)
    assert [(a.epoch, a.state) for a in (first, second)] == [(1, "lost"), (2, "running")]
    error = msgspec.json.decode(first.error or b"", type=JobError)
    assert (error.kind, error.exit) == ("lost", Exit(signal=9, name="SIGKILL")), "how its process ended"
    other.succeed(job, b"1")
    assert rig.states(job) == ["running", "queued", "running", "succeeded"]


def test_the_third_loss_fails_a_job(rig: Rig) -> None:
    job = rig.submit("add", {"a": 1})
    for n in range(1, LOSSES_MAX + 1):
        worker = rig.worker()
        worker.begin(job)
        worker.lose()
        assert rig.get(job).losses == n
    assert (rig.state(job), rig.error(job).kind) == (("failed", "lost"), "lost")
    assert rig.get(job).attempt == 1


@pytest.mark.parametrize(
    "death",
    [
        Death("lost", None),
        Death("killed", Exit(signal=9, name="SIGKILL")),  # for a neighbour
        Death("stalled", Exit(signal=9, name="SIGKILL")),
        Death("quit", Exit(code=0)),
    ],
    ids=lambda death: death.how,
)
def test_what_must_not_run_twice_is_failed_when_it_is_cut_off(rig: Rig, death: Death) -> None:
    """At most once with on_lost=fail, however the worker ended."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", on_lost="fail")
    worker.begin(job)
    worker.die(msgspec.structs.replace(death))
    rig.worker("io")
    assert (rig.state(job), rig.error(job).kind) == (("failed", "lost"), "lost")


def test_what_must_not_run_twice_runs_when_it_had_not_begun(rig: Rig) -> None:
    worker = rig.worker()
    job = rig.submit("once")
    worker.lose()
    assert rig.state(job) == ("queued", "recalled")
    assert rig.worker().start_of(job).attempt == 1


def test_a_neighbour_of_a_killed_attempt_runs_again_uncounted(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    worker.die(Death("killed", Exit(signal=9, name="SIGKILL")))
    assert rig.state(job) == ("queued", "lost")
    assert (rig.get(job).attempt, rig.get(job).losses) == (0, 0)


def test_the_attempt_that_stalled_the_loop_is_blamed_and_the_others_are_not(rig: Rig) -> None:
    worker = rig.worker("io")
    guilty, innocent = rig.submit("fetch", retries=1), rig.submit("fetch")
    worker.begin(innocent)
    start = worker.begin(guilty)
    worker.die(Death("stalled", Exit(signal=9, name="SIGKILL"), (start.no, start.epoch)))
    assert rig.state(guilty) == ("retrying", "retry")
    assert [kind_of(a) for a in attempts(rig, guilty.id)] == ["stalled"]
    assert rig.state(innocent) == ("queued", "lost")
    assert rig.get(innocent).losses == 0


def test_when_none_is_blamed_for_a_stall_old_threads_count_as_lost(rig: Rig) -> None:
    """Also one that began just after the worker's last answer: it is the likeliest of all."""
    worker = rig.worker("io")
    old, loop = rig.submit("thumbnail"), rig.submit("fetch")
    worker.begin(old)
    worker.begin(loop)
    rig.clock.advance(PING_S)
    late = rig.submit("thumbnail")
    worker.begin(late)
    rig.clock.advance(STALL_S - PING_S)
    young = rig.submit("thumbnail")
    worker.begin(young)
    worker.die(Death("stalled", Exit(signal=9, name="SIGKILL")))
    assert [rig.get(job).losses for job in (old, late, young, loop)] == [1, 1, 0, 0]
    assert [rig.state(job) for job in (old, late, young, loop)] == [("queued", "lost")] * 4


def test_deaths_are_counted(rig: Rig) -> None:
    rig.worker().lose()
    assert rig.engine.counters["worker_died", "cpu", "lost"] == 1


# -- late and foreign reports ----------------------------------------------------------------------------------------


def report(worker: FakeWorker, rig: Rig, no: int, epoch: int) -> None:
    worker.say(
        Begin(no, epoch, rig.now_us()),
        Items(no, epoch, "out", 1, 0, b"1"),
        Log(no, epoch, 1, 0, b"{}"),
        Progress(no, epoch, b"{}"),
        Result(no, epoch, rig.now_us(), 0.1, None, 0, b'"late"'),
    )


def test_reports_of_an_older_epoch_are_refused_and_counted(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1, backoff={"base_s": 0})
    no = worker.start_of(job).no
    worker.fail(job)
    rig.clock.advance(0)
    rig.clock.advance(0.001)
    assert worker.start_of(job).epoch == 2
    before = rig.read(job)
    report(worker, rig, no, 1)
    assert rig.read(job) == before
    assert rig.state(job) == ("running", None)
    counters = rig.engine.counters
    assert [counters["refused", what] for what in ("begin", "items", "log", "progress", "result")] == [1] * 5
    worker.succeed(job, b'"real"')
    assert rig.get(job).result == b'"real"'


def test_reports_after_the_outcome_change_nothing(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    no = worker.start_of(job).no
    worker.succeed(job, b'"first"')
    report(worker, rig, no, 1)
    assert rig.get(job).result == b'"first"'
    assert rig.engine.counters["refused", "result"] == 1


def test_a_worker_that_is_gone_is_not_heard(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    no = worker.start_of(job).no
    worker.lose()
    report(worker, rig, no, 1)
    assert rig.state(job)[0] == "queued"


def test_the_store_has_the_last_word(rig: Rig) -> None:
    """An outcome that the fence refuses is counted, and told to nobody."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    active = rig.engine.board.active[job.id]
    active.job.owner = "someone else"
    waiting = rig.engine.wait(job.id, "default", 60)
    worker.succeed(job)
    assert rig.store.refusals["owner"] == 1
    assert not waiting.called
    stored = result_of(rig.store.get(job.id))
    assert stored is not None
    assert stored.state == "running"
    rig.clock.advance(60)
    assert result_of(waiting).state == "running"


# -- limits and want of memory ---------------------------------------------------------------------------------------

OOM = Exit(signal=9, name="SIGKILL", oom=True)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (None, "the kernel ended the worker process for want of memory"),
        ("memory limit of 64 MiB (max_rss)", "memory limit of 64 MiB (max_rss)"),
    ],
)
def test_an_attempt_that_used_too_much_memory_has_crashed(rig: Rig, limit: str | None, words: str) -> None:
    """It counts: of two tries both are used up. `exit.oom` and the message say why."""
    job = rig.submit("flaky", retries=1, backoff={"base_s": 0})
    for _ in range(2):
        worker = rig.worker()
        rig.clock.advance(0)
        start = worker.begin(job)
        worker.die(Death("exit", OOM, (start.no, start.epoch), rig.now_us(), limit))
        rig.clock.advance(0.01)
    error = rig.error(job)
    assert (rig.state(job)[0], error.kind, error.exit, error.message) == ("failed", "crashed", OOM, words)
    assert rig.get(job).attempt == 2


def test_nobody_is_blamed_for_an_io_worker_that_was_killed_for_want_of_memory(rig: Rig) -> None:
    """Any of its attempts may have done it: all run again, uncounted."""
    worker = rig.worker("io")
    jobs = [rig.submit("thumbnail"), rig.submit("fetch")]
    for job in jobs:
        worker.begin(job)
    worker.die(Death("lost", OOM))
    other = rig.worker("io")
    for job in jobs:
        assert other.has(job)
        assert (rig.get(job).attempt, rig.get(job).losses) == (1, 1)


def test_a_program_that_was_killed_from_elsewhere_is_a_loss(rig: Rig) -> None:
    """As with workers: it runs again uncounted, and the third loss ends it; with on_lost=fail the first."""
    worker = rig.worker("command")
    job = rig.submit("cat", {"path": "/x"})
    for _ in range(LOSSES_MAX):
        assert rig.state(job)[0] == "running"
        worker.begin(job)
        worker.fail(job, "lost", message="cat was ended by SIGKILL")
    assert (rig.state(job)[0], rig.error(job).kind, rig.get(job).epoch) == ("failed", "lost", LOSSES_MAX)
    job = rig.submit("cat", {"path": "/x"}, on_lost="fail")
    worker.begin(job)
    worker.fail(job, "lost")
    assert (rig.error(job).kind, rig.get(job).epoch) == ("lost", 1)
    job = rig.submit("cat", {"path": "/x"})
    worker.begin(job)
    result_of(rig.cancel(job))
    worker.fail(job, "lost")
    assert rig.state(job)[0] == "cancelled", "it was asked to stop, and has stopped"
