"""F2: steps of flows carried out over treq, on the reactor that was passed in. Holds no knowledge of the protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed  # noqa: A004 - Twisted's own
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer

from jobsvc.client.core import (
    CONNECT_S,
    REPLY_S,
    Broken,
    Close,
    Exchange,
    Open,
    Opened,
    Pause,
    Read,
    Reply,
    Request,
    Step,
)
from jobsvc.client.discovery import Target
from jobsvc.client.headers import common_headers

T = TypeVar("T")

WINDOW_BYTES = 256 * 1024
"""Of one response, held for a flow that is busy; then the connection is not read until it asks again."""
KEPT_CONNECTIONS = 32
"""Idle ones kept open; more jobs at a time open and close the rest."""


class Requester(Protocol):
    """What is used of treq: `HTTPClient`, the treq module itself, or its stub in tests."""

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        """As `treq.request`."""


class Body(TwistedProtocol):
    """A response body that is asked for piece by piece; pauses the connection when nobody asks."""

    def __init__(self, quiet_s: float, clock: IReactorTime) -> None:
        self._quiet_s = quiet_s
        self._clock = clock
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._paused = False
        self._waiter: Deferred[bytes] | None = None
        self._end: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Hand it to whoever waits, or keep it."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(data)
            return
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= WINDOW_BYTES and not self._paused:
            self._paused = True
            cast("Any", self.transport).pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body has ended, cleanly or not."""
        self._end = reason
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._finish(waiter)

    def read(self) -> Deferred[bytes]:
        """The next piece, empty at the clean end. Fails with `Broken`."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
            if self._paused:
                self._paused = False
                cast("Any", self.transport).resumeProducing()
            return succeed(data)
        waiter: Deferred[bytes] = Deferred(self._forget)
        if self._end is not None:
            self._finish(waiter)
            return waiter
        self._waiter = waiter
        waiter.addTimeout(self._quiet_s, self._clock)
        return waiter.addErrback(_as_broken, "")

    def close(self) -> None:
        """Whoever read it is done. A body that has not ended takes its connection with it."""
        if self._end is None and self.transport is not None:
            self.transport.loseConnection()

    def _forget(self, waiter: Deferred[bytes]) -> None:
        self._waiter = None

    def _finish(self, waiter: Deferred[bytes]) -> None:
        end = self._end
        if end is not None and not end.check(ResponseDone, PotentialDataLoss):
            waiter.errback(Broken(f"the connection to the daemon broke: {end.getErrorMessage()}", sent=True))
        else:
            waiter.callback(b"")


class TreqWire:
    """Carries out steps over treq."""

    def __init__(
        self, reactor: Any, target: Target, requester: Requester | None, headers: Mapping[str, str]
    ) -> None:
        self._reactor = reactor
        self._base = target.base
        self._pool: HTTPConnectionPool | None = None
        self._requester = requester or self._own(target)
        self._headers = common_headers(target, headers)

    def close(self) -> Deferred[None]:
        """Close the connections kept open; fires when they are closed."""
        return succeed(None) if self._pool is None else self._pool.closeCachedConnections()

    async def carry_out(self, step: Step, bodies: dict[int, Body]) -> Any:
        """The answer to one step; bodies opened and not closed are kept in `bodies`. Raises `Broken`."""
        if isinstance(step, Exchange):
            response, body = await self._send(step.request, step.request.wait_s + REPLY_S)
            bodies[id(body)] = body
            parts: list[bytes] = []
            while piece := await body.read():
                parts.append(piece)
            del bodies[id(body)]
            return Reply(response.code, _head(response), b"".join(parts))
        if isinstance(step, Read):
            return await step.handle.read()
        if isinstance(step, Open):
            response, body = await self._send(step.request, step.quiet_s)
            bodies[id(body)] = body
            return Opened(body, response.code, _head(response))
        if isinstance(step, Close):
            bodies.pop(id(step.handle), None)
            step.handle.close()
        elif isinstance(step, Pause):
            await deferLater(self._reactor, step.seconds, lambda: None)
        return None

    async def release(self, bodies: dict[int, Body]) -> None:
        """Give back the connections of bodies that nobody reads on."""
        for body in bodies.values():
            body.close()

    async def _send(self, request: Request, quiet_s: float) -> tuple[IResponse, Body]:
        sending = self._requester.request(
            request.method,
            self._base + request.target,
            headers=Headers({name: [value] for name, value in {**self._headers, **request.headers}.items()}),
            data=request.body or None,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        sending.addTimeout(quiet_s, self._reactor).addErrback(_as_broken, self._base)
        response = await sending
        body = Body(quiet_s, self._reactor)
        response.deliverBody(body)
        return response, body

    def _own(self, target: Target) -> Requester:
        self._pool = HTTPConnectionPool(self._reactor)
        self._pool.maxPersistentPerHost = KEPT_CONNECTIONS
        agent: IAgent
        if target.unix is None:
            agent = Agent(self._reactor, connectTimeout=CONNECT_S, pool=self._pool)
        else:
            endpoints = _UnixEndpoints(self._reactor, target.unix)
            agent = Agent.usingEndpointFactory(self._reactor, endpoints, pool=self._pool)
        return cast("Requester", HTTPClient(agent))


@implementer(IAgentEndpointFactory)
class _UnixEndpoints:
    """Every address is the one Unix socket."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - the interface's name
        """See `IAgentEndpointFactory`."""
        return UNIXClientEndpoint(self._reactor, self._path, timeout=CONNECT_S)


def _head(response: IResponse) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }


def _as_broken(failure: Failure, base: str) -> Failure:
    """A failed request or read as `Broken`; a cancelled one stays what it is."""
    if failure.check(CancelledError, Broken):
        return failure
    unsent = failure.check(ConnectError, DNSLookupError) is not None
    silent = failure.check(TimeoutError) is not None
    what = f"cannot reach the daemon at {base}" if unsent else "the connection to the daemon broke"
    causes = getattr(failure.value, "reasons", None) or [failure]
    why = "no answer in time" if silent else "; ".join(cause.getErrorMessage() for cause in causes)
    return Failure(Broken(f"{what}: {why}", sent=not unsent, silent=silent))
