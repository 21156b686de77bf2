"""Jobs as futures: what cancelling and leaving do, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import weakref
from concurrent.futures import CancelledError, wait
from contextlib import ExitStack
from threading import Event, Thread, current_thread
from typing import Any

import httpx2
import msgspec
import pytest

from jobsvc.client import (
    Client,
    JobCancelled,
    JobFuture,
    executor_loop,
)
from tests.client.executing import BUSY, DEADLINE_S, Gate, executor_of, fast
from tests.client.fake_daemon import TOKEN, URL, Answer, FakeDaemon, job_id, lines, problem, transport


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


def test_cancelling_before_it_was_sent(daemon: FakeDaemon) -> None:
    """It is not sent; `wait` and `as_completed` know at once."""
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        jobs.submit("add", 0)
        assert gate.reached.wait(DEADLINE_S)
        futures = [jobs.submit("add", n) for n in range(1, 4)]
        assert futures[1].cancel()
        assert futures[1].cancel()
        assert wait([futures[1]], DEADLINE_S).done == {futures[1]}
        gate.release.set()
        assert [futures[at].result(DEADLINE_S) for at in (0, 2)] == [1, 3]
    assert [line["args"] for line in daemon.lines()[1]] == [[1], [3]]
    with pytest.raises(CancelledError):
        futures[1].result(0)
    assert not futures[0].cancel()


def test_cancelling_what_was_sent_cancels_the_job(daemon: FakeDaemon) -> None:
    """The daemon is asked to stop it; leaving the block does not wait for its end."""
    daemon.hold = Event()
    with ExitStack() as stack:
        stack.callback(daemon.hold.set)
        with executor_of(daemon) as jobs:
            held = jobs.submit("held")
            jobs.submit("add", 1).result(DEADLINE_S)  # the one before has been named meanwhile
            assert held.cancel()
    cancels = [asked for asked in daemon.asked if asked.path.endswith("/cancel")]
    assert [asked.path for asked in cancels] == [f"/v1/jobs/{job_id(1)}/cancel"]


def test_cancelling_while_it_is_under_way_cancels_the_job(daemon: FakeDaemon) -> None:
    """The line has left, its id is not known yet: the job is cancelled as soon as it is."""
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        first = jobs.submit("held")
        assert gate.reached.wait(DEADLINE_S)
        assert first.cancel()
        gate.release.set()
        jobs.submit("add", 1).result(DEADLINE_S)
    assert [asked.path for asked in daemon.asked if asked.method == "POST"].count(
        f"/v1/jobs/{job_id(1)}/cancel"
    ) == 1


def test_a_cancel_that_fails_is_logged(daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """Best effort; but one that came too late is no failure."""
    for answer, said in (
        (Answer(409, [msgspec.json.encode(problem(409, "conflict", "done"))], "application/problem+json"), 0),
        (Answer(500, [msgspec.json.encode(problem(500, "internal", "oh"))], "application/problem+json"), 1),
    ):
        daemon.hold = Event()
        path = f"/v1/jobs/{job_id(len(daemon.jobs) + 1)}/cancel"
        daemon.answers[path] = [answer]
        with executor_of(daemon, key=f"logged {said}") as jobs:
            held = jobs.submit("held")
            jobs.submit("add", 1).result(DEADLINE_S)
            held.cancel()
        daemon.hold.set()
        assert [record.levelname for record in caplog.records] == ["WARNING"] * said


def test_a_job_cancelled_by_others(daemon: FakeDaemon) -> None:
    """Its future raises `JobCancelled`, which is not the future's own cancellation."""
    ended = {"line": 1, "id": job_id(1), "state": "cancelled", "result": None, "error": {"kind": "cancelled"}}
    body = lines([{"line": 1, "id": job_id(1)}, ended])
    daemon.answers["/v1/jobs/bulk"] = [Answer(200, [body], "application/x-ndjson")]
    with executor_of(daemon) as jobs:
        future = jobs.submit("add", 1)
        with pytest.raises(JobCancelled):
            future.result(DEADLINE_S)
        assert not future.cancelled()


def test_shutdown_waits_or_cancels(daemon: FakeDaemon) -> None:
    """It takes no more; with cancel_futures nothing is left to wait for."""
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        first = jobs.submit("held")
        assert gate.reached.wait(DEADLINE_S)
        unsent = jobs.submit("add", 1)
        jobs.shutdown(wait=False, cancel_futures=True)
        assert first.cancelled()
        assert unsent.cancelled()
        with pytest.raises(RuntimeError, match="after shutdown"):
            jobs.submit("add", 2)
        gate.release.set()
        jobs.shutdown()
    assert [len(request) for request in daemon.lines()] == [1]


def test_shutdown_without_wait_loses_nothing(daemon: FakeDaemon) -> None:
    """What was submitted is still sent, and its futures get their results."""
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        futures = [jobs.submit("add", n) for n in range(20)]
        jobs.shutdown(wait=False)
        gate.release.set()
        assert [future.result(DEADLINE_S) for future in futures] == list(range(20))


def test_an_executor_nobody_holds_ends_its_thread(daemon: FakeDaemon) -> None:
    """And its futures still get their results."""
    gate = Gate(daemon)
    with Client(URL, TOKEN, session=fast(), transport=transport(daemon)) as client:
        jobs = client.executor(transport=gate.transport())
    future = jobs.submit("add", 1)
    loop, gone = jobs._loop, weakref.ref(jobs)
    del jobs
    gc.collect()
    assert gone() is None
    gate.release.set()
    assert future.result(DEADLINE_S) == 1
    loop.join()


def test_submit_waits_while_too_much_is_unsent(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backpressure: a bounded number of lines waits, then the one who submits. Cancelling makes room."""
    monkeypatch.setattr(executor_loop, "UNSENT_LINES", 3)
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        jobs.submit("add", 0)
        assert gate.reached.wait(DEADLINE_S)
        futures = [jobs.submit("add", n) for n in range(1, 4)]
        entered, passed = Event(), Event()

        def more() -> None:
            entered.set()
            futures.append(jobs.submit("add", 4))
            passed.set()

        thread = Thread(target=more)
        thread.start()
        assert entered.wait(DEADLINE_S)
        assert not passed.is_set()
        futures[0].cancel()
        assert passed.wait(DEADLINE_S)
        thread.join()
        gate.release.set()
        assert [future.result(DEADLINE_S) for future in futures[1:]] == [2, 3, 4]


def test_callbacks_may_submit_and_shut_down(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run on the executor's thread, which never waits for itself."""
    monkeypatch.setattr(executor_loop, "UNSENT_LINES", 1)
    more: list[JobFuture] = []
    names: list[str] = []
    told = Event()

    def ended(_future: concurrent.futures.Future[Any]) -> None:
        names.append(current_thread().name)
        more.extend(jobs.submit("add", n) for n in range(3))
        jobs.shutdown(wait=True)
        told.set()

    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        jobs.submit("add", 1).add_done_callback(ended)
        gate.release.set()
        assert told.wait(DEADLINE_S)
        assert [future.result(DEADLINE_S) for future in more] == [0, 1, 2]
    assert names == ["jobsvc-executor"]


def test_a_broken_thread_is_told_to_every_future(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours must not leave anybody waiting."""
    monkeypatch.setattr("threading.excepthook", lambda _args: None)

    def broken(_self: Any) -> Any:
        raise OSError("no more files")

    monkeypatch.setattr(executor_loop.ExecutorLoop, "_taken", broken)
    with executor_of(daemon) as jobs:
        future = jobs.submit("add", 1)
        with pytest.raises(Exception, match="no more files"):
            future.result(DEADLINE_S)
        with pytest.raises(RuntimeError):
            jobs.submit("add", 2)


def test_they_are_futures_of_the_standard_library(daemon: FakeDaemon) -> None:
    """For all that takes such: `as_completed`, asyncio."""
    with executor_of(daemon) as jobs:
        futures = [jobs.submit("add", n) for n in range(5)]
        done = concurrent.futures.as_completed(futures, DEADLINE_S)
        assert sorted(future.result() for future in done) == list(range(5))

        async def awaited() -> list[Any]:
            return await asyncio.gather(*(asyncio.wrap_future(jobs.submit("add", n)) for n in range(5)))

        with asyncio.Runner() as runner:
            assert runner.run(awaited()) == list(range(5))


def test_busy_lines_do_not_wait_for_long_jobs(daemon: FakeDaemon) -> None:
    """A line that is sent again goes as soon as its request is named, not when the jobs beside it have ended."""
    daemon.hold = Event()
    turns = iter([BUSY, None])
    daemon.refuse = lambda line: next(turns) if line["args"] == [1] else None
    gate = Gate(daemon)
    with ExitStack() as stack:
        jobs = stack.enter_context(executor_of(daemon, gate.transport()))
        stack.callback(daemon.hold.set)
        jobs.submit("add", 0)
        assert gate.reached.wait(DEADLINE_S)
        held, busy = jobs.submit("held"), jobs.submit("add", 1)
        gate.release.set()
        assert busy.result(DEADLINE_S) == 1
        assert not held.done()
        held.cancel()


def test_a_failure_after_the_first_request_is_met_with_patience(daemon: FakeDaemon) -> None:
    """A daemon that was there a moment ago is probably restarting: more tries than for one that never was."""
    inner = transport(daemon)
    left = 0

    def handle(request: httpx2.Request) -> httpx2.Response:
        nonlocal left
        if left:
            left -= 1
            raise httpx2.ConnectError("restarting")
        return inner.handle_request(request)

    with executor_of(daemon, httpx2.MockTransport(handle), fast(tries=2)) as jobs:
        assert jobs.submit("add", 1).result(DEADLINE_S) == 1
        left = 10
        assert jobs.submit("add", 2).result(DEADLINE_S) == 2
        assert left == 0
