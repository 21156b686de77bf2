"""What outlives a connection until the collector comes by, in circles that Klein makes. It holds nothing large."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from sys import getsizeof
from typing import Any
from weakref import ref

import pytest

from jobsvc.http.bulk import BulkIntake
from jobsvc.http.bulk_reply import Outcomes
from jobsvc.http.limits import WRITE_SLICE_BYTES
from jobsvc.http.request import Request
from jobsvc.http.slices import Slices
from jobsvc.model.job import Submit
from jobsvc.ports import Submitted
from tests.http import wire
from tests.http.house import House

NDJSON = {"Content-Type": "application/x-ndjson"}
LINE = b'{"task":"echo"}\n'
LARGE_BYTES = 4 * WRITE_SLICE_BYTES


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """The collector stays away, as it does in a daemon for thousands of requests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def requests_of(house: House) -> list[Request]:
    return [each for each in gc.get_objects() if isinstance(each, Request) and each.site is house.site]


@pytest.mark.parametrize("args", ["{}", "{"], ids=["refused", "malformed"])
def test_a_refused_request_keeps_no_body(house: House, args: str) -> None:
    """A client that is refused again and again would else fill the memory, beside all that the budget counts."""
    client = house.wire()
    body = b'{"task":"nobody","args":' + args.encode() + b" " * LARGE_BYTES + b"}"
    for _ in range(3):  # of one connection, whose request is another each time
        client.request("POST", "/v1/jobs", body)
    assert [reply.status // 100 for reply in client.replies()] == [4, 4, 4]
    assert [len(each.body()) for each in requests_of(house)] == [0, 0, 0]
    assert house.site.budget.used == 0


class FullTransport(wire.MemoryTransport):
    """A socket of a client that reads nothing: full after each write."""

    @property
    def channel(self) -> Any:
        return self.producer

    def write(self, data: bytes) -> None:
        super().write(data)
        self.channel.pauseProducing()

    def lose(self) -> None:
        """As a socket of Twisted's does, before its protocol is told."""
        self.channel.stopProducing()
        self.unregisterProducer()


def test_what_a_client_left_unread_goes_with_its_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply, and the socket with what it holds of it; also for requests answered earlier on it."""
    monkeypatch.setattr(wire, "MemoryTransport", FullTransport)
    job = house.done(result=b'"' + b"x" * LARGE_BYTES + b'"')
    client = house.wire()
    client.request("GET", "/livez")
    client.request("GET", f"/v1/jobs/{job['id']}/result")
    assert len(client.sent) < LARGE_BYTES < house.site.held_bytes
    socket = ref(client.transport)
    client.transport.lose()  # type: ignore[attr-defined]
    client.leave()
    del client
    assert socket() is None
    assert house.site.held_bytes == 0


def test_an_upload_that_was_answered_holds_no_line(house: House) -> None:
    """The table of its lines, empty at the end, would still be as large as it was."""
    client = house.wire()
    client.request("POST", "/v1/jobs/bulk?follow=out", LINE * 100, NDJSON)
    for start in house.worker.started:
        house.worker.succeed(start)
    client.request("POST", "/v1/jobs/bulk?atomic=1", LINE * 100, NDJSON)
    assert [reply.status for reply in client.replies()] == [200, 200]
    assert [len(reply.lines()) for reply in client.replies()] == [200, 100]
    found = gc.get_objects()
    [outcomes] = [each for each in found if isinstance(each, Outcomes) and each._edge.engine is house.engine]
    assert getsizeof(outcomes._lines) == getsizeof({})
    assert [each.held for each in found if isinstance(each, BulkIntake) and each._clock is house.clock] == [
        [],
        [],
    ]


def test_nothing_is_followed_for_a_client_that_left(house: House) -> None:
    """A group that is committed only then: nobody would ever take what is followed for it."""
    outcomes = Outcomes(house.api.edge, "default")
    outcomes.close()
    outcomes.committed([1], [Submitted(house.engine.prepare(Submit(task="echo"), "default"))])
    assert not house.engine.bus.follows


def test_a_reply_that_is_not_read_on_is_let_go() -> None:
    """While anything refers to its text, a bytearray cannot grow."""
    text = bytearray(LARGE_BYTES)
    slices = Slices(text, lambda _: slices.pauseProducing(), lambda: None)  # type: ignore[arg-type]
    slices.start()
    with pytest.raises(BufferError):
        text.append(0)
    slices.stopProducing()
    text.append(0)


def test_a_reply_that_was_read_is_let_go() -> None:
    """The same after its last slice."""
    text = bytearray(LARGE_BYTES)
    slices = Slices(text, lambda _: None, lambda: None)  # type: ignore[arg-type]
    slices.start()
    text.append(0)
