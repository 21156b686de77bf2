"""The asyncio face: the same methods over the documented wire, on an event loop of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2
import msgspec
import pytest

from jobsvc.client import (
    AsyncClient,
    BulkRefused,
    JobFailed,
    Refused,
    Retry,
    Session,
    Unreachable,
    WaitTimeout,
)
from jobsvc.client.asking import ASKING
from jobsvc.client.asynchronous import OWN_POLLS
from tests.client.fake_daemon import TOKEN, URL, Answer, FakeDaemon, job, job_id, lines, problem, transport

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine to its end."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines on a loop of their own, beside Twisted's reactor, which does not run meanwhile."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


def client_of(daemon: FakeDaemon, **options: Any) -> AsyncClient:
    return AsyncClient(URL, TOKEN, transport=transport(daemon), **options)


def test_submit_wait_result(run: Run, daemon: FakeDaemon) -> None:
    """Coroutines for answers; the requests are those of the blocking face."""

    async def story() -> None:
        async with client_of(daemon) as client:
            job = await client.submit("add", {"a": 1, "b": 2}, labels={"team": "x"})
            assert job.id == job_id(1)
            assert (await client.wait(job)).result == 3
            assert await client.result(job.id, timeout=5) == 3
            assert await client.call("add", [1, 2]) == 3
            assert (await client.get(job)).created_at is not None

    run(story())
    asked = daemon.asked[0]
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["host"] == "jobs.example:8787"
    assert asked.headers["content-type"] == "application/json"


def test_failures_are_raised(run: Run, daemon: FakeDaemon) -> None:
    """A failed job, a refusal and a wait that ran out come as their exceptions."""

    async def story() -> None:
        async with client_of(daemon) as client:
            with pytest.raises(JobFailed, match="ValueError: boom"):
                await client.call("boom")
            with pytest.raises(Refused, match="not_found"):
                await client.get("unknown")
            with pytest.raises(WaitTimeout):
                await client.wait(await client.submit("held"), timeout=0)

    run(story())


def test_map_and_submit_many(run: Run, daemon: FakeDaemon) -> None:
    """In the order of the input, failures in their place, and on after them; refused lines are told."""

    async def story() -> None:
        async with client_of(daemon) as client:
            results = [value async for value in client.map("add", [[n, 1] for n in range(600)])]
            assert results == list(range(1, 601))
            assert await client.submit_many([("add", [1]), {"task": "add"}]) == [job_id(601), job_id(602)]
            outcomes = client.map("boom", [{}, {}])
            for _ in range(2):
                with pytest.raises(JobFailed):
                    await anext(outcomes)
            await outcomes.aclose()
            daemon.refuse = lambda line: problem(422, "invalid_args", "no") if line["args"] == ["x"] else None
            with pytest.raises(BulkRefused) as caught:
                await client.submit_many([("add", [1]), ("add", ["x"])])
            assert caught.value.line == 2

    run(story())


def test_events_streams_and_the_rest(run: Run, daemon: FakeDaemon) -> None:
    """Asynchronous iterators, and the methods of one request."""

    async def story() -> None:
        async with client_of(daemon) as client:
            job = await client.submit("add", [1])
            assert [event.kind async for event in client.events(job)] == ["job", "log", "progress", "end"]
            assert [value async for value in client.stream(job)] == [10, 20, 30]
            assert [item.seq async for item in client.items(job, from_=3)] == [3]
            assert [row.id async for row in client.list(limit=5)] == [job.id]
            assert (await client.cancel(job, "deadline", grace_s=2)).id == job.id
            assert (await client.retry(job)).id == job_id(2)
            assert (await client.tasks())["tasks"][0]["name"] == "add"
            assert (await client.info())["version"] == "1"

    run(story())


def test_update_names_the_revision_it_saw(run: Run, daemon: FakeDaemon) -> None:
    """A job as seen is changed only as seen; an id as it is; a stale one is refused."""

    async def story() -> None:
        async with client_of(daemon) as client:
            seen = await client.submit("held")
            changed = await client.update(seen, priority=5, labels={"a": "b"})
            assert (changed.priority, changed.labels, changed.revision) == (5, {"a": "b"}, 2)
            with pytest.raises(Refused) as caught:
                await client.update(seen, priority=6)
            assert (caught.value.code, caught.value.status) == ("stale", 412)
            assert (await client.update(seen.id, priority=7)).revision == 3
            assert (await client.update(seen.id, if_match=3, priority=8)).priority == 8

    run(story())
    patches = [asked for asked in daemon.asked if asked.method == "PATCH"]
    assert [asked.headers.get("if-match") for asked in patches] == ['"r1"', '"r1"', None, '"r3"']
    assert msgspec.json.decode(patches[0].body) == {"priority": 5, "labels": {"a": "b"}}


def test_submits_of_one_moment_are_joined(run: Run, daemon: FakeDaemon) -> None:
    """The first alone, the others in one request; each caller has its own job, or its own refusal."""
    daemon.refuse = lambda line: problem(422, "invalid_args", "no") if line["args"] == ["x"] else None

    async def story() -> list[Any]:
        async with client_of(daemon) as client:
            asked = [client.submit("add", [n]) for n in range(50)]
            return await asyncio.gather(*asked, client.submit("add", ["x"]), return_exceptions=True)

    *made, refused = run(story())
    assert [each.args for each in made] == [[n] for n in range(50)]
    assert len({each.id for each in made}) == 50
    assert isinstance(refused, Refused)
    assert [asked.path for asked in daemon.asked] == ["/v1/jobs", "/v1/jobs/bulk"]
    [bulk] = daemon.lines()
    assert len({line["key"] for line in bulk}) == 50


def test_headers_go_with_every_request(run: Run, daemon: FakeDaemon) -> None:
    """What the user gives; never what would break the framing or change what a request means."""
    traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-ID": "r-1"}

    async def story() -> None:
        async with client_of(daemon, headers=traced) as client:
            await client.submit("add", [1])
            [_ async for _ in client.map("add", [[1]])]

    run(story())
    assert {asked.headers["traceparent"] for asked in daemon.asked} == {traced["traceparent"]}
    assert {asked.headers["x-request-id"] for asked in daemon.asked} == {"r-1"}
    for bad in ({"X-A": "a\r\nHost: b"}, {"a b": "c"}, {"content-length": "3"}, {"If-Match": "*"}):
        with pytest.raises(ValueError, match="headers: "):
            client_of(daemon, headers=bad)


def hanging(started: asyncio.Event, ended: list[str]) -> httpx2.MockTransport:
    """A daemon that never answers, and tells when a request is given up."""

    async def handle(request: httpx2.Request) -> httpx2.Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.url.path)
        raise AssertionError

    return httpx2.MockTransport(handle)


def _get(client: AsyncClient) -> Awaitable[Any]:
    return client.get("x")


def _submit(client: AsyncClient) -> Awaitable[Any]:
    return client.submit("add")


@pytest.mark.parametrize("ask", [_get, _submit])
def test_cancelling_gives_up_the_request(run: Run, ask: Callable[[AsyncClient], Awaitable[Any]]) -> None:
    """The request goes with the task, and nothing is tried again."""
    ended: list[str] = []

    async def story() -> None:
        started = asyncio.Event()
        async with AsyncClient(URL, TOKEN, transport=hanging(started, ended)) as client:
            task = asyncio.ensure_future(ask(client))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert len(ended) == 1

    run(story())


def test_closing_tells_who_still_waits(run: Run) -> None:
    """A submit under way, one that waits behind it, a wait, an iterator; but not the tasks they are in."""
    ended: list[str] = []

    async def reading(client: AsyncClient) -> str:
        with pytest.raises(Unreachable, match="closed"):
            [_ async for _ in client.events("x")]
        await asyncio.sleep(0)
        return "goes on"

    async def story() -> None:
        started = asyncio.Event()
        async with AsyncClient(URL, TOKEN, transport=hanging(started, ended)) as client:
            asked = (client.submit("add"), client.submit("add"), client.wait("x"), reading(client))
            all_of_them = asyncio.gather(*asked, return_exceptions=True)
            await started.wait()
            await asyncio.sleep(0)
        *told, read = await all_of_them
        assert [type(each) for each in told] == [Unreachable] * 3
        assert read == "goes on"
        with pytest.raises(Unreachable, match="closed"):
            await client.info()

    run(story())


def test_many_waits_share_a_few_connections(run: Run, daemon: FakeDaemon) -> None:
    """The first have a request each; the others are asked for together, by id, and so are calls."""
    waiting = busiest = 0
    all_wait, finish = asyncio.Event(), asyncio.Event()
    inner = transport(daemon)

    async def handle(request: httpx2.Request) -> httpx2.Response:
        nonlocal waiting, busiest
        waiting += 1
        busiest = max(busiest, waiting)
        if waiting > OWN_POLLS and len(daemon.jobs) == 301:
            all_wait.set()
        if "wait" in request.url.params or "prefer" in request.headers:
            await finish.wait()
            for row in daemon.jobs:
                row |= {"state": "succeeded", "done": True, "result": row["id"]}
        waiting -= 1
        return inner.handle_request(request)

    async def story() -> None:
        async with AsyncClient(URL, TOKEN, transport=httpx2.MockTransport(handle)) as client:
            ids = await client.submit_many([("held", [])] * 300)
            waits = [asyncio.ensure_future(client.result(job_id)) for job_id in ids]
            called = asyncio.ensure_future(client.call("held"))
            given_up = asyncio.ensure_future(client.wait(ids[-1]))
            await all_wait.wait()
            given_up.cancel()
            finish.set()
            assert await asyncio.gather(*waits) == ids
            assert await called == job_id(301)
            assert given_up.cancelled()

    run(story())
    assert busiest <= OWN_POLLS + ASKING + 1


@pytest.mark.parametrize(
    ("failure", "maybe_sent"),
    [
        (httpx2.ConnectError("no"), False),
        (httpx2.ReadError("cut"), True),
        (httpx2.ReadTimeout("silence"), True),
    ],
)
def test_failures_of_the_transport(run: Run, failure: httpx2.TransportError, maybe_sent: bool) -> None:
    """As for the blocking face; no exception of httpx2 comes out."""
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        raise failure

    session = Session(retry=Retry(uniform=lambda low, _high: low, tries=2, base_s=0.0))

    async def story() -> None:
        async with AsyncClient(URL, TOKEN, session=session, transport=httpx2.MockTransport(handle)) as client:
            with pytest.raises(Unreachable) as caught:
                await client.retry(job_id(1))
            assert caught.value.maybe_sent is maybe_sent

    run(story())
    assert len(asked) == (1 if maybe_sent else 2)


class _Cut(httpx2.AsyncByteStream):
    """A body that breaks off after its pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        raise httpx2.ReadError("cut")

    async def aclose(self) -> None:
        self.closed = True


def test_a_reader_that_leaves_gives_its_connection_back(run: Run) -> None:
    """Closing the iterator closes the response."""
    body = _Cut(b'id: 1\nevent: job\ndata: {"seq":1,"kind":"job","data":{}}\n\n')

    async def story() -> None:
        made = httpx2.MockTransport(lambda _request: httpx2.Response(200, stream=body))
        async with AsyncClient(URL, TOKEN, transport=made) as client:
            events = client.events("x")
            assert (await anext(events)).seq == 1
            await events.aclose()
            assert body.closed

    run(story())


def test_a_map_outlasts_a_broken_reply(run: Run, daemon: FakeDaemon) -> None:
    """Once the ids are known the rest is asked for by id."""
    done = job(1, "add", [1, 2])
    daemon.jobs.append(done)
    first = lines([{"line": 1, "id": done["id"]}])

    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/jobs/bulk":
            return httpx2.Response(200, stream=_Cut(first))
        return httpx2.Response(200, json={"jobs": [done], "missing": []})

    async def story() -> list[Any]:
        async with AsyncClient(URL, TOKEN, transport=httpx2.MockTransport(handle)) as client:
            return [value async for value in client.map("add", [[1, 2]])]

    assert run(story()) == [3]


def test_it_speaks_over_a_unix_socket(run: Run, tmp_path: Path) -> None:
    """`unix:` URLs, as for the other faces."""
    path = str(tmp_path / "socket")
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"version":"9"}')
        await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_unix_server(answer, path)
        async with server, AsyncClient(f"unix:{path}", TOKEN) as client:
            assert (await client.info())["version"] == "9"

    run(story())
    assert seen[0].startswith(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n")


def test_an_answer_of_another_shape_is_told(run: Run, daemon: FakeDaemon) -> None:
    """A proxy's page instead of a reply."""
    daemon.answers["/v1/jobs/bulk"] = [Answer(200, [b"<html>\n"], "text/html")]

    async def story() -> list[Any]:
        async with client_of(daemon) as client:
            asked = [client.submit("add", [n]) for n in range(3)]
            return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = run(story())
    assert first.id == job_id(1)
    assert {str(other) for other in others} == {str(others[0])}
    assert "not the bulk reply of a jobsvc daemon" in str(others[0])
