"""Jobs as futures: what is sent and when, and what each future is told.

The daemon is played by a transport on the executor's own thread. Nothing sleeps: the test holds a reply, does what it
wants to do meanwhile, and lets go.
"""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event
from typing import Any

import httpx2
import msgspec
import pytest

from jobsvc.client import (
    Client,
    JobFailed,
    JobFuture,
    Refused,
    Unreachable,
    executor_loop,
)
from jobsvc.client.arguments import arguments_of
from tests.client.executing import BUSY, DEADLINE_S, Gate, add, executor_of, listing
from tests.client.fake_daemon import URL, Answer, FakeDaemon, job_id, lines, problem, transport


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


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
