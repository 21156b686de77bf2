"""The Twisted face: the same methods over a real HTTP parser in memory, by treq; no reactor, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import pytest
from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError  # noqa: A004 - Twisted's own
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed

from jobsvc.client import JobFailed, Refused, Retry, Session, TwistedClient, Unreachable
from jobsvc.client.core import Broken
from jobsvc.client.treq_wire import WINDOW_BYTES, Body, Requester
from tests.client.fake_daemon import TOKEN, URL, FakeDaemon, Site, job_id, problem

T = TypeVar("T")


def now(work: Deferred[T] | Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of what must be done by now."""
    waited = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    got: list[T | Failure] = []
    waited.addBoth(got.append)
    assert got, "not done yet"
    if isinstance(got[0], Failure):
        got[0].raiseException()
    return got[0]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def client(daemon: FakeDaemon) -> TwistedClient:
    return TwistedClient(Clock(), URL, TOKEN, requester=cast("Requester", StubTreq(Site(daemon))))


def test_submit_wait_result(client: TwistedClient, daemon: FakeDaemon) -> None:
    """Deferreds for answers; the requests are those of the blocking face."""
    job = now(client.submit("add", {"a": 1, "b": 2}))
    assert now(client.wait(job)).result == 3
    assert now(client.result(job.id, timeout=5)) == 3
    assert now(client.call("add", [1, 2])) == 3
    assert now(client.get(job)).id == job_id(1)
    asked = daemon.asked[0]
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["content-type"] == "application/json"


def test_failures_are_failures(client: TwistedClient) -> None:
    """A failed job and a refusal come as their exceptions."""
    with pytest.raises(JobFailed, match="ValueError: boom"):
        now(client.call("boom"))
    with pytest.raises(Refused, match="not_found"):
        now(client.get("unknown"))


def test_map_and_submit_many(client: TwistedClient) -> None:
    """In the order of the input, failures in their place, and on after them."""

    async def mapped() -> list[Any]:
        return [value async for value in client.map("add", [[n, 1] for n in range(600)])]

    assert now(mapped()) == list(range(1, 601))
    assert now(client.submit_many([("add", [1]), {"task": "add"}])) == [job_id(601), job_id(602)]

    async def failing() -> list[str]:
        outcomes = client.map("boom", [{}, {}])
        seen = []
        for _ in range(2):
            try:
                await anext(outcomes)
            except JobFailed as failed:
                seen.append(failed.kind)
        return seen

    assert now(failing()) == ["task_error", "task_error"]


def test_events_streams_and_the_rest(client: TwistedClient) -> None:
    """Asynchronous iterators, and the methods of one request."""
    job = now(client.submit("add", [1]))

    async def read() -> tuple[list[str], list[Any], list[int], list[str]]:
        return (
            [event.kind async for event in client.events(job)],
            [value async for value in client.stream(job)],
            [item.seq async for item in client.items(job, from_=3)],
            [row.id async for row in client.list(limit=5)],
        )

    kinds, values, numbers, rows = now(read())
    assert kinds == ["job", "log", "progress", "end"]
    assert (values, numbers, rows) == ([10, 20, 30], [3], [job.id])
    assert now(client.cancel(job)).id == job.id
    assert now(client.retry(job)).id == job_id(2)
    assert now(client.tasks())["tasks"][0]["name"] == "add"
    assert now(client.info())["version"] == "1"
    now(client.close())


class _Scripted:
    """Stands for treq: answers each request with the next Deferred."""

    def __init__(self, *answers: Deferred[Any]) -> None:
        self.answers = list(answers)

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        return self.answers.pop(0)


def test_no_daemon_is_tried_again_on_the_clock() -> None:
    """Refused connections: the delays pass on the reactor's clock, then `Unreachable`."""
    clock = Clock()
    refused = [Deferred[Any](), Deferred[Any]()]
    session = Session(retry=Retry(uniform=lambda _low, high: high, tries=2))
    client = TwistedClient(clock, URL, TOKEN, session=session, requester=_Scripted(*refused))
    answer = client.get("x")
    refused[0].errback(ConnectionRefusedError())
    assert not answer.called
    clock.advance(0.1)
    refused[1].errback(ConnectionRefusedError())
    with pytest.raises(Unreachable, match=r"cannot reach the daemon at http://jobs\.example:8787"):
        now(answer)


def test_a_silent_daemon_is_given_up() -> None:
    """No reply in time: the request is cancelled, and may have been carried out."""
    clock = Clock()
    cancelled: list[object] = []
    silent: Deferred[Any] = Deferred(cancelled.append)
    client = TwistedClient(clock, URL, TOKEN, requester=_Scripted(silent))
    answer = client.retry("x")
    clock.advance(31)
    with pytest.raises(Unreachable, match="no answer in time") as caught:
        now(answer)
    assert caught.value.maybe_sent
    assert len(cancelled) == 1


@pytest.mark.parametrize("ask", [lambda client: client.get("x"), lambda client: client.submit("add")])
def test_cancelling_gives_up_the_request(ask: Callable[[TwistedClient], Deferred[Any]]) -> None:
    """The Deferred of a method may be cancelled; the request goes with it, and nothing is tried again."""
    cancelled: list[object] = []
    pending: Deferred[Any] = Deferred(cancelled.append)
    clock = Clock()
    client = TwistedClient(clock, URL, TOKEN, requester=_Scripted(pending))
    answer = ask(client)
    answer.cancel()
    with pytest.raises(CancelledError):
        now(answer)
    assert len(cancelled) == 1
    assert clock.getDelayedCalls() == []


def test_submits_of_one_moment_are_joined(daemon: FakeDaemon) -> None:
    """What comes while another submit is under way goes together; each Deferred has its own outcome."""
    daemon.refuse = lambda line: problem(422, "invalid_args", "no") if line["args"] == ["x"] else None
    behind = cast("Requester", StubTreq(Site(daemon)))
    held: list[Callable[[], object]] = []

    class Slow:
        """Sends the first request when the test says so."""

        def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
            if held:
                return behind.request(method, url, **options)
            first: Deferred[Any] = Deferred()
            held.append(lambda: behind.request(method, url, **options).chainDeferred(first))
            return first

    client = TwistedClient(Clock(), URL, TOKEN, requester=Slow())
    asked = [client.submit("add", [n]) for n in (*range(30), "x")]
    assert daemon.asked == []
    held[0]()
    assert [now(each).args for each in asked[:-1]] == [[n] for n in range(30)]
    with pytest.raises(Refused, match="invalid_args"):
        now(asked[-1])
    assert [each.path for each in daemon.asked] == ["/v1/jobs", "/v1/jobs/bulk"]


def test_update_is_conditional(client: TwistedClient) -> None:
    """A job is changed as it was seen, or not at all."""
    seen = now(client.submit("held"))
    assert now(client.update(seen, priority=5)).priority == 5
    with pytest.raises(Refused, match="stale"):
        now(client.update(seen, priority=6))


class _Transport:
    """Records what a body asks of its connection."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pauseProducing(self) -> None:
        self.said.append("pause")

    def resumeProducing(self) -> None:
        self.said.append("resume")

    def loseConnection(self) -> None:
        self.said.append("lose")


def body(clock: Clock | None = None) -> tuple[Body, _Transport]:
    made, transport = Body(45.0, clock or Clock()), _Transport()
    made.makeConnection(cast("Any", transport))
    return made, transport


def test_a_body_nobody_asks_for_pauses_its_connection() -> None:
    """Held is at most a window; asking again gives it all at once and reads on."""
    made, transport = body()
    made.dataReceived(b"x" * (WINDOW_BYTES - 1))
    assert transport.said == []
    made.dataReceived(b"yz")
    assert transport.said == ["pause"]
    assert len(now(made.read())) == WINDOW_BYTES + 1
    assert transport.said == ["pause", "resume"]


def test_a_body_ends_cleanly_or_breaks() -> None:
    """The clean end is empty, again and again; anything else is `Broken`, after what came before."""
    made, transport = body()
    waiting = made.read()
    made.dataReceived(b"a")
    assert now(waiting) == b"a"
    made.connectionLost(Failure(ResponseDone()))
    assert (now(made.read()), now(made.read())) == (b"", b"")
    made.close()
    assert transport.said == []

    made, _ = body()
    made.dataReceived(b"b")
    made.connectionLost(Failure(ResponseFailed([Failure(ConnectionError("cut"))])))
    assert now(made.read()) == b"b"
    with pytest.raises(Broken):
        now(made.read())


def test_silence_in_a_body_breaks_it() -> None:
    """Longer than three heartbeats without a byte: the connection is dead."""
    clock = Clock()
    made, transport = body(clock)
    waiting = made.read()
    clock.advance(46)
    with pytest.raises(Broken) as caught:
        now(waiting)
    assert caught.value.silent
    made.close()
    assert transport.said == ["lose"]
