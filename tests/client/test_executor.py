"""Jobs as futures: what is sent and when, what each future is told, what cancelling and leaving do.

The daemon is played by a transport on the executor's own thread. Nothing sleeps: the test holds a reply, does what it
wants to do meanwhile, and lets go.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from contextlib import ExitStack, contextmanager
from threading import Event, Thread, current_thread
from typing import Any

import httpx2
import msgspec
import pytest

from jobsvc import Context, command, task
from jobsvc.client import (
    Client,
    JobCancelled,
    JobExecutor,
    JobFailed,
    JobFuture,
    Refused,
    Retry,
    Session,
    Unreachable,
    executor_loop,
)
from jobsvc.client.arguments import arguments_of
from tests.client.fake_daemon import TOKEN, URL, Answer, FakeDaemon, job_id, lines, problem, transport

BUSY = problem(429, "queue_full", "full", retry_safe=True, retry_after_s=0.0)
DEADLINE_S = 30.0
"""What would hang fails instead."""


@task(name="add")
def add(a: int, ctx: Context, b: int = 0, *, c: int = 0) -> int:
    """Stands for a user's task."""
    return a + b + c


listing = command("listing", ["ls", "{folder}"])


def fast(tries: int = 4) -> Session:
    """Delays of nothing, keys k."""
    return Session(retry=Retry(uniform=lambda low, _high: low, tries=tries, base_s=0.0), new_key=lambda: "k")


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


class Gate:
    """A daemon whose next bulk submit is held until the test lets it go."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.reached = Event()
        self.release = Event()

    def transport(self) -> httpx2.MockTransport:
        inner = transport(self.daemon)

        def handle(request: httpx2.Request) -> httpx2.Response:
            self.reached.set()
            assert self.release.wait(DEADLINE_S)
            return inner.handle_request(request)

        return httpx2.MockTransport(handle)


@contextmanager
def executor_of(
    daemon: FakeDaemon,
    made: httpx2.MockTransport | None = None,
    session: Session | None = None,
    **options: Any,
) -> Iterator[JobExecutor]:
    """An executor of a client that is closed already: it has connections of its own."""
    with Client(URL, TOKEN, session=session or fast(), transport=transport(daemon)) as client:
        executor = client.executor(transport=made or transport(daemon), **options)
    with executor:
        yield executor


def test_results_and_failures(daemon: FakeDaemon) -> None:
    """Each future has its job's result, or raises what `Client.result` would."""
    with executor_of(daemon) as jobs:
        futures = [jobs.submit("add", n, 1) for n in range(300)]
        assert [future.result(DEADLINE_S) for future in futures] == list(range(1, 301))
        assert isinstance(futures[0], JobFuture)
        assert futures[0].job_id == job_id(1)
        error = jobs.submit("boom").exception(DEADLINE_S)
        assert isinstance(error, JobFailed)
        assert (error.kind, error.job_id) == ("task_error", job_id(301))
        assert list(jobs.map("add", [1, 2], [10, 20])) == [11, 22]


def test_what_is_submitted_meanwhile_goes_together(daemon: FakeDaemon) -> None:
    """The first goes alone and at once, the others in one request behind it; each line has its own key."""
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        first = jobs.submit("add", 0)
        assert gate.reached.wait(DEADLINE_S)
        futures = [jobs.submit("add", n) for n in range(1, 101)]
        gate.release.set()
        assert [future.result(DEADLINE_S) for future in (first, *futures)] == list(range(101))
    requests = daemon.lines()
    assert [len(request) for request in requests] == [1, 100]
    assert [line["key"] for request in requests for line in request] == [f"k:{n}" for n in range(1, 102)]
    assert {asked.query["follow"] for asked in daemon.asked} == {"out"}


def test_options_go_with_every_job(daemon: FakeDaemon) -> None:
    """A key of the user's own makes the whole repeatable: the same again takes up what is there."""
    for _ in range(2):
        with executor_of(daemon, key="nightly", priority=5) as jobs:
            assert [jobs.submit("add", n).result(DEADLINE_S) for n in (1, 2)] == [1, 2]
    assert len(daemon.jobs) == 2
    assert {(line["key"], line["priority"]) for [line] in daemon.lines()} == {
        ("nightly:1", 5),
        ("nightly:2", 5),
    }


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "sent"),
    [
        ("add", (1, 2), {}, ("add", [1, 2])),
        ("add", (), {"a": 1}, ("add", {"a": 1})),
        ("add", (), {}, ("add", [])),
        ("add", ({"x": 1},), {}, ("add", [{"x": 1}])),
        (add, (1, 2), {}, ("add", [1, 2])),
        (add, (1,), {"c": 3}, ("add", {"a": 1, "c": 3})),
        (listing, ("/tmp",), {}, ("listing", ["/tmp"])),
    ],
)
def test_arguments(fn: Any, args: Any, kwargs: Any, sent: Any) -> None:
    """By position, by name, or mixed where the task itself tells which is which; its context is no argument."""
    name, values = arguments_of(fn, args, kwargs)
    assert (name, msgspec.json.decode(msgspec.json.encode(values))) == sent


def test_a_task_may_stand_for_its_name(daemon: FakeDaemon) -> None:
    """The function decorated with `@task`, as others take any function."""
    with executor_of(daemon) as jobs:
        assert jobs.submit(add, 1, c=2).result(DEADLINE_S) == 3
    assert daemon.lines() == [[{"task": "add", "args": {"a": 1, "c": 2}, "key": "k:1"}]]


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "error", "words"),
    [
        ("add", (1,), {"b": 2}, TypeError, "by position or by name"),
        (len, ([],), {}, TypeError, "is no task"),
        (add, (1, 2, 3, 4), {}, TypeError, "takes 3 arguments"),
        (add, (1,), {"a": 2}, TypeError, "'a' by position and by name"),
        (add, (1,), {"z": 2}, TypeError, "no argument 'z'"),
        ("add", (object(),), {}, TypeError, "object"),
        ("add", (float("nan"),), {}, ValueError, "NaN"),
    ],
)
def test_wrong_arguments_are_raised_at_once(
    daemon: FakeDaemon, fn: Any, args: Any, kwargs: Any, error: type[Exception], words: str
) -> None:
    """By the submit itself, with what is wrong; nothing is sent."""
    with executor_of(daemon) as jobs, pytest.raises(error, match=words):
        jobs.submit(fn, *args, **kwargs)
    assert daemon.asked == []


def test_refused_lines_concern_their_futures_alone(daemon: FakeDaemon) -> None:
    """Others of the same request go on."""
    daemon.refuse = lambda line: problem(422, "invalid_args", "no") if line["args"] == ["x"] else None
    gate = Gate(daemon)
    with executor_of(daemon, gate.transport()) as jobs:
        futures = [jobs.submit("add", each) for each in (1, "x", 2)]
        gate.release.set()
        error = futures[1].exception(DEADLINE_S)
        assert isinstance(error, Refused)
        assert error.code == "invalid_args"
        assert [futures[at].result(DEADLINE_S) for at in (0, 2)] == [1, 2]


def test_busy_lines_are_sent_again(daemon: FakeDaemon) -> None:
    """Refused for load: the same line with the same key, until it is taken."""
    turns = iter([BUSY, BUSY, None])
    daemon.refuse = lambda line: next(turns) if line["args"] == [1] else None
    with executor_of(daemon) as jobs:
        busy = jobs.submit("add", 1)
        other = jobs.submit("add", 2)
        assert (busy.result(DEADLINE_S), other.result(DEADLINE_S)) == (1, 2)
    sent = [line["key"] for request in daemon.lines() for line in request if line["args"] == [1]]
    assert sent == ["k:1"] * 3


def test_a_daemon_that_stays_busy_refuses_in_the_end(daemon: FakeDaemon) -> None:
    """After as many tries as a restart of the daemon is given."""
    daemon.refuse = lambda _line: BUSY
    with executor_of(daemon) as jobs:
        error = jobs.submit("add", 1).exception(DEADLINE_S)
    assert isinstance(error, Refused)
    assert error.code == "queue_full"
    assert len(daemon.lines()) == 30


def test_a_refusal_of_the_whole_goes_to_all_its_futures(daemon: FakeDaemon) -> None:
    """A wrong token."""
    with Client(URL, "wrong", transport=transport(daemon)) as client:
        jobs = client.executor(transport=transport(daemon))
    with jobs:
        errors = [jobs.submit("add", n).exception(DEADLINE_S) for n in range(3)]
    assert {getattr(error, "code", None) for error in errors} == {"unauthenticated"}


class _Cut(httpx2.AsyncByteStream):
    """A body that breaks off after its pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield piece
        raise httpx2.ReadError("cut")


def test_a_restart_in_the_middle_goes_unnoticed(daemon: FakeDaemon) -> None:
    """Before the jobs are named the lines go again, by key; afterwards the rest is asked for by id."""
    inner = transport(daemon)
    cuts = iter((b"", lines([{"line": 1, "id": job_id(1)}])))

    def handle(request: httpx2.Request) -> httpx2.Response:
        reply = inner.handle_request(request)
        piece = next(cuts, None) if request.url.path == "/v1/jobs/bulk" else None
        return reply if piece is None else httpx2.Response(200, stream=_Cut(piece))

    with executor_of(daemon, httpx2.MockTransport(handle)) as jobs:
        assert jobs.submit("add", 1, 2).result(DEADLINE_S) == 3
    assert len(daemon.jobs) == 1
    assert [asked.path for asked in daemon.asked] == ["/v1/jobs/bulk", "/v1/jobs/bulk", "/v1/jobs"]


def test_no_daemon_is_told_to_every_future(daemon: FakeDaemon) -> None:
    """After the usual tries; and later submits try anew."""
    up = False
    inner = transport(daemon)

    def handle(request: httpx2.Request) -> httpx2.Response:
        if not up:
            raise httpx2.ConnectError("refused")
        return inner.handle_request(request)

    with executor_of(daemon, httpx2.MockTransport(handle)) as jobs:
        assert isinstance(jobs.submit("add", 1).exception(DEADLINE_S), Unreachable)
        up = True
        assert jobs.submit("add", 1).result(DEADLINE_S) == 1


def test_a_job_that_is_gone_is_told(daemon: FakeDaemon) -> None:
    """Deleted before its outcome was asked for: an error, not an endless wait."""
    body = lines([{"line": 1, "id": job_id(7)}])
    daemon.answers["/v1/jobs/bulk"] = [Answer(200, [body], "application/x-ndjson")]
    with executor_of(daemon) as jobs:
        error = jobs.submit("add", 1).exception(DEADLINE_S)
    assert isinstance(error, Refused)
    assert error.code == "purged"


def test_long_jobs_share_a_few_connections(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """More open requests than are allowed: those with the fewest jobs give way, and theirs are asked for together."""
    monkeypatch.setattr(executor_loop, "FOLLOWED", 2)
    daemon.hold = Event()
    with ExitStack() as stack:
        jobs = stack.enter_context(executor_of(daemon))
        stack.callback(daemon.hold.set)
        futures = []
        for _ in range(5):
            futures.append(jobs.submit("later"))
            jobs.submit("add", 1).result(DEADLINE_S)
        assert [future.result(DEADLINE_S) for future in futures[:3]] == ["late"] * 3
        assert not daemon.hold.is_set()
    assert [future.result(DEADLINE_S) for future in futures] == ["late"] * 5


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
