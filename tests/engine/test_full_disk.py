"""F32, seen by the engine: what happens to submits, cancels, outputs and outcomes while the disk is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobsvc.engine.writes import FULL_S, RETRY_S
from tests.engine.fakes import Slow, at_once, error_of, result_of

if TYPE_CHECKING:
    from jobsvc.ports import WorkerKind
    from tests.conftest import FlushFailures


def test_cancel_and_a_full_disk(slow: Slow) -> None:
    """Refused as a whole: nothing was asked, the attempt goes on and its end is recorded."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    cancelled = rig.cancel(job)
    store.fail_next()
    store.pump()
    assert error_of(cancelled).code == "disk_full"
    assert rig.state(job) == ("running", None)
    assert worker.cancels == []
    worker.succeed(job, b"1")
    store.settle_down()
    assert rig.state(job) == ("succeeded", None)
    assert [event.seq for event in rig.read(job)] == [1, 2, 3]
    assert rig.free()


def test_timeout_and_cancel_and_a_full_disk(slow: Slow) -> None:
    """F32: the cancel is refused, and what was asked before stands: it times out and is tried again."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    worker.begin(job)
    rig.clock.advance(5)
    assert rig.state(job) == ("stopping", "timeout")
    store.held = True
    cancelled = rig.cancel(job, "now")
    store.fail_next()
    store.pump()
    assert error_of(cancelled).code == "disk_full"
    assert rig.state(job) == ("stopping", "timeout")
    assert worker.killed == []
    worker.fail(job, "cancelled")
    store.settle_down()
    assert rig.state(job) == ("retrying", "retry")
    assert [event.seq for event in rig.read(job)] == [1, 2, 3, 4]


@pytest.mark.parametrize(("task", "kind"), [("watched", "cpu"), ("stubborn", "io")])
def test_what_waits_for_the_disk_is_not_idle(slow: Slow, task: str, kind: WorkerKind) -> None:
    """F32: its silence is ours; once there is space the idle timeout counts from there."""
    rig, store = at_once(slow)
    worker = rig.worker(kind)
    job = rig.submit(task, timeouts={"run": None, "idle": 2}, retries=0)
    worker.begin(job)
    store.held = True
    store.fail_next(20)
    worker.items(job, 1)
    for _ in range(20):
        store.pump()
        rig.clock.advance(1)
    assert rig.state(job) == ("running", None)
    store.settle_down()
    store.held = False
    rig.clock.advance(1.9)
    assert rig.state(job) == ("running", None)
    rig.clock.advance(2)
    rig.clock.advance(0.2)
    assert rig.state(job) != ("running", None)


def test_cancel_and_death_and_a_full_disk(slow: Slow) -> None:
    """It was not stopped by a cancel that was never accepted: it crashed."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    cancelled = rig.cancel(job)
    worker.crash()
    store.fail_next()
    store.pump()
    assert error_of(cancelled).code == "disk_full"
    store.settle_down()
    assert (rig.state(job)[0], rig.error(job).kind) == ("failed", "crashed")


def test_an_outcome_and_a_full_disk(slow: Slow, flush_failures: FlushFailures) -> None:
    """It waits in memory until there is room, and nobody is told before."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    other = rig.submit("flaky")
    waiting = rig.engine.wait(job.id, "default", 60)
    store.held = True
    worker.succeed(job, b"1")
    store.fail_next(2)
    store.pump()
    assert not waiting.called
    rig.clock.advance(1)
    store.pump()
    rig.clock.advance(1)
    store.settle_down()
    assert result_of(waiting).result == b"1"
    rig.clock.advance(1)
    store.settle_down()
    worker.fail(other)
    store.fail_next()
    store.pump()
    assert rig.state(other)[0] == "running"
    rig.clock.advance(1)
    store.settle_down()
    assert rig.states(other)[:2] == ["running", "retrying"]
    assert rig.state(other)[0] == "running", "its backoff was over when there was space: it runs at once"
    assert flush_failures() == [], "the store tells it once: not every claim that was made meanwhile"


def test_cancel_of_what_has_ended_and_a_full_disk(slow: Slow) -> None:
    """Refused at once: its end waits for space, and nobody knows how long."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    store.held = True
    worker.succeed(job, b"1")
    store.fail_next()
    store.pump()
    assert error_of(rig.cancel(job)).code == "disk_full"
    rig.clock.advance(1)
    store.settle_down()
    assert rig.state(job) == ("succeeded", None)
    assert error_of(rig.cancel(job)).code == "conflict"


def test_chunks_and_a_full_disk(slow: Slow) -> None:
    """F32: nothing said is lost: it waits without credit, and the end of the job waits behind it."""
    rig, store = at_once(slow)
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    store.held = True
    sent = len(worker.sent)
    worker.items(job, 1, 2)
    store.fail_next(2)
    store.pump()
    assert rig.engine.disk_full
    worker.items(job, 3)
    worker.succeed(job)
    assert len(worker.sent) == sent, "no credit"
    assert store.kinds == [], "all waits for the next try"
    rig.clock.advance(RETRY_S)
    store.pump()
    assert rig.state(job) == ("running", None)
    rig.clock.advance(RETRY_S)
    store.settle_down()
    events = rig.read(job)
    assert [(event.seq, event.kind) for event in events] == [
        (1, "job"),
        (2, "state"),
        (3, "item"),
        (4, "item"),
        (5, "item"),
        (6, "state"),
    ]
    assert [event.data for event in events if event.kind == "item"] == [1, 2, 3]
    assert rig.state(job) == ("succeeded", None)
    assert not rig.engine.disk_full


@pytest.mark.parametrize(("on_lost", "state"), [("retry", ("queued", "lost")), ("fail", ("failed", "lost"))])
def test_results_beyond_what_memory_may_hold_on_a_full_disk(
    slow: Slow, monkeypatch: pytest.MonkeyPatch, on_lost: str, state: tuple[str, str | None]
) -> None:
    """F32: what waits is bounded: a result beyond it is given up, and the job runs again unless it must not."""
    monkeypatch.setattr("jobsvc.engine.writes.HELD_RESULTS_MAX_BYTES", 10)
    rig, store = at_once(slow)
    worker = rig.worker("io")
    kept, given_up = (rig.submit("thumbnail", on_lost=on_lost) for _ in range(2))
    for job in (kept, given_up):
        worker.begin(job)
    store.held = True
    store.fail_next()
    worker.succeed(kept, b"12345678")
    store.pump()
    worker.succeed(given_up, b"12345678")
    rig.engine.stop_claiming()
    rig.clock.advance(RETRY_S)
    store.settle_down()
    assert rig.get(kept).result == b"12345678"
    assert rig.state(given_up) == state
    assert [event.seq for event in rig.read(given_up)] == [1, 2, 3]
    assert rig.free()


def test_the_news_of_a_full_disk_grows_old(slow: Slow) -> None:
    """A submit that found no space makes the daemon say so for a while; then the next one to try will tell."""
    rig, store = at_once(slow)
    store.held = True
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.fail_next()
    store.pump()
    assert error_of(answer).code == "disk_full"
    assert rig.engine.disk_full
    rig.clock.advance(FULL_S)
    assert not rig.engine.disk_full


@pytest.mark.parametrize("returns_s", [0.5, 1.5], ids=["while it is full", "when there is space"])
def test_a_thread_that_returns_while_its_retry_is_not_stored(
    slow: Slow, flush_failures: FlushFailures, returns_s: float
) -> None:
    """F32: the retry that waits for it is not forgotten."""
    rig, store = at_once(slow)
    worker = rig.worker("io", {"thread": 8})
    job = rig.submit("stubborn")
    worker.begin(job)
    store.held = True
    store.fail_next(3)
    rig.clock.advance(5)
    store.pump()
    assert rig.state(job)[0] == "running"
    rig.clock.advance(returns_s)
    store.pump()
    worker.succeed(job)
    for _ in range(5):
        store.settle_down()
        rig.clock.advance(1)
    store.settle_down()
    assert worker.start_of(job).attempt == 2
    assert rig.states(job) == ["running", "retrying", "queued", "running"]
    flush_failures()


def test_an_attempt_that_ends_while_others_are_written_ends_behind_its_output(slow: Slow) -> None:
    """F32: what comes during a round of writes waits for the next: no end passes what was said before it."""
    rig, store = at_once(slow)
    worker = rig.worker("io")
    first, second = (rig.submit("thumbnail") for _ in range(2))
    for job in (first, second):
        worker.begin(job)
    store.held = True
    worker.items(first, 1)
    store.fail_next()
    store.pump()
    rig.clock.advance(RETRY_S)
    assert store.kinds == ["append"]
    worker.items(second, 2)
    worker.succeed(second)
    store.settle_down()
    assert rig.state(second) == ("succeeded", None)
    assert [event.kind for event in rig.read(second)] == ["job", "state", "item", "state"]


def test_a_cancel_while_outputs_wait_is_refused_whole(slow: Slow) -> None:
    """F32: it would pass what was said before it; nothing is asked, and after there is space it can be."""
    rig, store = at_once(slow)
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    store.held = True
    worker.items(job, 1)
    store.fail_next()
    store.pump()
    assert error_of(rig.cancel(job)).code == "disk_full"
    assert worker.cancels == []
    rig.clock.advance(RETRY_S)
    store.settle_down()
    asked = rig.cancel(job)
    store.settle_down()
    assert result_of(asked)[0].state == "stopping"
    assert [event.seq for event in rig.read(job)] == [1, 2, 3, 4]


@pytest.mark.parametrize("ends", [False, True])
def test_progress_does_not_gather(slow: Slow, *, ends: bool) -> None:
    """F32: it needs no credit, so only the newest of each attempt is kept, and told when there is space."""
    rig, store = at_once(slow)
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    store.held = True
    worker.items(job, 1)
    store.fail_next()
    store.pump()
    for n in range(1_000):
        worker.progress(job, n, 1_000)
    if ends:
        worker.succeed(job)
    rig.clock.advance(RETRY_S)
    store.settle_down()
    events = rig.read(job)
    assert [event.data["n"] for event in events if event.kind == "progress"] == [999]
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "no hole"
    assert rig.state(job)[0] == ("succeeded" if ends else "running")
