"""What only a real socket shows: an early refusal that can be read, a body cut anywhere, a reader that stops."""

from __future__ import annotations

from typing import Any, cast

import pytest_twisted
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.http.house import House
from tests.http.wire import TOKEN

LIMIT_S = 10.0
"""No answer after this: the test has failed."""


class Talker(protocol.Protocol):
    """Sends, and keeps what it gets until the server closes."""

    def __init__(self) -> None:
        self.got = b""
        self.closed: Deferred[bool] = Deferred()  # whether the end was a clean one

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.closed.callback(reason.check(ConnectionDone) is not None)


async def connected(house: House) -> tuple[Any, Talker]:
    """A listening port and a client of it."""
    from twisted.internet import reactor

    port = cast("Any", reactor).listenTCP(0, house.site, interface="127.0.0.1")
    talker = Talker()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), talker)
    return port, talker


async def closed_cleanly(talker: Talker) -> bool:
    """Waits for the end."""
    from twisted.internet import reactor

    return await talker.closed.addTimeout(LIMIT_S, cast("Any", reactor))


@pytest_twisted.ensureDeferred
async def test_an_early_refusal_is_read_by_a_client_that_sends_first(house: House) -> None:
    """The client writes megabytes before it reads; it finds the reply and a clean end, not a reset."""
    port, talker = await connected(house)
    size = 64 * 1024 * 1024
    auth = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head = f"POST /v1/jobs HTTP/1.1\r\n{auth}Content-Length: {size}\r\n\r\n"
    assert talker.transport is not None
    talker.transport.write(head.encode() + b"x" * (4 * 1024 * 1024))
    talker.transport.loseWriteConnection()  # type: ignore[attr-defined]
    assert await closed_cleanly(talker)
    assert talker.got.startswith(b"HTTP/1.1 413 ")
    assert talker.got.endswith(b"}")
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_whole_conversation_over_tcp(house: House) -> None:
    """Keep-alive, a body in pieces, a stream to its end, and a close at the client's wish."""
    port, talker = await connected(house)
    house.worker.auto = True
    assert talker.transport is not None
    auth = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    body = b'{"task":"echo","args":{"x":"y"}}'
    request = f"POST /v1/jobs HTTP/1.1\r\n{auth}Content-Type: application/json\r\n"
    whole = f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body
    for at in range(len(whole)):
        talker.transport.write(whole[at : at + 1])
    talker.transport.write(f"GET /v1/jobs HTTP/1.1\r\n{auth}Connection: close\r\n\r\n".encode())
    assert await closed_cleanly(talker)
    assert talker.got.count(b"HTTP/1.1 201 ") == 1
    assert talker.got.count(b"HTTP/1.1 200 ") == 1
    await port.stopListening()
