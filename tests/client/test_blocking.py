"""The blocking face: its methods over the documented wire, its connections, its iterators."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import httpx2
import pytest

from jobsvc.client import (
    BulkRefused,
    Client,
    JobFailed,
    Refused,
    Retry,
    Session,
    Unreachable,
)
from tests.client.fake_daemon import TOKEN, URL, Answer, FakeDaemon, job_id, lines, transport


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with Client(URL, TOKEN, transport=transport(daemon)) as made:
        yield made


def test_submit_wait_result(client: Client, daemon: FakeDaemon) -> None:
    """The usual way: submit, wait, take the result; by the job or by its id."""
    job = client.submit("add", {"a": 1, "b": 2}, labels={"team": "x"})
    assert job.id == job_id(1)
    assert client.wait(job).result == 3
    assert client.result(job.id, timeout=5) == 3
    assert client.get(job).created_at is not None
    asked = daemon.asked[0]
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["host"] == "jobs.example:8787"
    assert asked.headers["content-type"] == "application/json"


def test_call_gives_the_result_or_raises(client: Client) -> None:
    """One line for one answer."""
    assert client.call("add", [1, 2]) == 3
    with pytest.raises(JobFailed, match="ValueError: boom"):
        client.call("boom")


def test_map_raises_in_place_and_goes_on(client: Client) -> None:
    """A failure is raised where it stands; the iteration may be continued after it."""
    results = client.map("boom", [{}, {}])
    for number in (1, 2):
        with pytest.raises(JobFailed) as caught:
            next(results)
        assert caught.value.job_id == job_id(number)
    assert list(results) == []
    (error,) = client.map("boom", [{}], return_errors=True)
    assert isinstance(error, JobFailed)


def test_map_of_an_endless_input_reads_two_batches_ahead(client: Client, daemon: FakeDaemon) -> None:
    """Taking a few results submits a bounded number of jobs."""
    assert list(islice(client.map("add", ([n, 1] for n in count())), 3)) == [1, 2, 3]
    assert len(daemon.jobs) == 256 + 512


def test_submit_many_gives_ids_in_order(client: Client) -> None:
    """Pairs and mappings alike."""
    ids = client.submit_many([("add", [1]), {"task": "add", "args": [2], "priority": 5}])
    assert ids == [job_id(1), job_id(2)]


def test_submit_many_tells_which_lines_were_refused(client: Client, daemon: FakeDaemon) -> None:
    """The ids of the others are not lost with the refusal."""
    problem = {"status": 422, "code": "invalid_args", "detail": "no", "title": "", "type": "about:blank"}
    body = lines([{"line": 1, "id": "x"}, {"line": 2, "problem": problem}])
    daemon.answers["/v1/jobs/bulk"] = [Answer(200, [body], "application/x-ndjson")]
    with pytest.raises(BulkRefused) as caught:
        client.submit_many([("add", [1]), ("add", ["x"])])
    first, second = caught.value.ids
    assert first == "x"
    assert isinstance(second, Refused)
    assert (second.line, caught.value.code) == (2, "invalid_args")


def test_events_and_streams(client: Client) -> None:
    """Events to the end; values and items of a stream, from any number on."""
    job = client.submit("add", [1])
    assert [event.kind for event in client.events(job)] == ["job", "log", "progress", "end"]
    assert list(client.stream(job)) == [10, 20, 30]
    assert [item.seq for item in client.items(job, from_=2)] == [2, 3]


def test_cancel_retry_list_tasks_info(client: Client, daemon: FakeDaemon) -> None:
    """The rest of the methods, each one request."""
    job = client.submit("add", [1])
    assert client.cancel(job, "deadline", grace_s=2).id == job.id
    assert daemon.asked[-1].body == b'{"mode":"deadline","grace_s":2}'
    assert client.retry(job).id == job_id(2)
    assert [row.id for row in client.list(state=["succeeded"], limit=10)] == [job_id(2), job_id(1)]
    assert client.tasks()["tasks"][0]["name"] == "add"
    assert client.info()["version"] == "1"


def test_update_is_conditional(client: Client, daemon: FakeDaemon) -> None:
    """A job is changed as it was seen, or not at all; an id as it is."""
    seen = client.submit("held")
    assert client.update(seen, priority=5, run_at="2026-12-24T18:00:00Z").priority == 5
    with pytest.raises(Refused) as caught:
        client.update(seen, labels={})
    assert caught.value.code == "stale"
    assert client.update(seen.id, labels={"a": "b"}).labels == {"a": "b"}
    asked = [asked for asked in daemon.asked if asked.method == "PATCH"]
    assert [each.headers.get("if-match") for each in asked] == ['"r1"', '"r1"', None]


def test_refusals_have_their_problem(daemon: FakeDaemon) -> None:
    """A wrong token is the daemon's word, not a guess of ours."""
    with Client(URL, "wrong", transport=transport(daemon)) as client, pytest.raises(Refused) as caught:
        client.info()
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("failure", "maybe_sent"),
    [
        (httpx2.ConnectError("no"), False),
        (httpx2.ReadError("cut"), True),
        (httpx2.ReadTimeout("silence"), True),
    ],
)
def test_failures_of_the_transport(failure: httpx2.TransportError, maybe_sent: bool) -> None:
    """Whether the request may have arrived is told from the failure; no exception of httpx2 comes out."""
    pauses: list[float] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        raise failure

    session = Session(retry=Retry(uniform=lambda _low, high: high, tries=2))
    client = Client(URL, TOKEN, session=session, transport=httpx2.MockTransport(handle), pause=pauses.append)
    with client, pytest.raises(Unreachable) as caught:
        client.retry(job_id(1))
    assert caught.value.maybe_sent is maybe_sent
    assert pauses == ([] if maybe_sent else [0.1])


class _Watched(httpx2.SyncByteStream):
    """A body that never ends by itself, and tells when it is closed."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        raise AssertionError("read on after the reader had left")

    def close(self) -> None:
        self.closed = True


def test_a_reader_that_leaves_gives_its_connection_back(daemon: FakeDaemon) -> None:
    """Closing the iterator closes the response: nothing is left to the garbage collector."""
    body = _Watched(b'id: 1\nevent: job\ndata: {"seq":1,"kind":"job","data":{}}\n\n')
    stream: Any = httpx2.MockTransport(lambda _request: httpx2.Response(200, stream=body))
    with Client(URL, TOKEN, transport=stream) as client:
        events = client.events("x")
        assert next(events).seq == 1
        events.close()
    assert body.closed
