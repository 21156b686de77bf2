"""F3: the HTTP server: connections and their limits. What a request means is the application's affair.

Twisted has no body limit, no deadline for a whole request and no cap on connections; they are here. One sweep looks
over all connections, so that a request costs no timers.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from uuid import uuid4

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server

from jobsvc.http.budget import Budget
from jobsvc.http.limits import (
    BODY_HARD_FACTOR,
    CONNECTIONS_MAX,
    IDLE_S,
    LINGER_S,
    REQUEST_DEADLINE_S,
    REQUEST_MIN_BYTES_PER_S,
    SWEEP_S,
    WRITE_STALL_S,
)
from jobsvc.http.request import Request


class Application(Protocol):
    """Who handles requests."""

    def handle(self, request: Request) -> None:
        """Answer it, now or later. Called when its body is complete, or at its head for a streamed one."""

    def streams_body(self, method: bytes, path: bytes) -> bool:
        """Whether this request's body is taken as it arrives."""

    def observe(self, request: Request, elapsed_s: float) -> None:
        """A request has been answered."""


class Channel(http.HTTPChannel):
    """One connection.

    Attributes:
        waits_since: since when this side waits for bytes of the client; None while a request is being handled.
        blocked_since: since when the client takes nothing of what is written; None when it does.
    """

    site: Site
    factory: Site
    transport: Any  # a TCP or Unix socket, or TLS over one: no interface names all that is used of them
    _networkProducer: Any
    waits_since: float | None = None
    blocked_since: float | None = None
    _receiving = False
    _body_paused = False
    _lingering: IDelayedCall | None = None

    # -- life

    def connectionMade(self) -> None:
        """Count it."""
        super().connectionMade()
        self.waits_since = self.site.reactor.seconds()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget it."""
        self.site.channels.discard(self)
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)

    def check(self, now: float) -> None:
        """Close it when it is over a limit."""
        if self._lingering is not None:
            return
        if self.blocked_since is not None and now - self.blocked_since >= WRITE_STALL_S:
            self.transport.abortConnection()
        elif self.waits_since is not None and now - self.waits_since >= self._allowed_s():
            if self._receiving or self.transport.disconnecting:
                self.transport.abortConnection()  # who sent half a request may also refuse to read
            else:
                self.loseConnection()

    def _allowed_s(self) -> float:
        if not self._receiving:
            return IDLE_S
        request: Request | None = self.requests[-1] if self.requests else None
        if request is None:
            return REQUEST_DEADLINE_S
        if request.upload is not None:
            return IDLE_S  # a stream may last for hours; `waits_since` moves with every piece
        size = request.received_bytes if request.length is None else request.length
        return REQUEST_DEADLINE_S + size / REQUEST_MIN_BYTES_PER_S

    # -- receiving

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._lingering is not None:
            return
        if not self._handlingRequest:
            if not self._receiving:
                self._receiving = True
                self.waits_since = self.site.reactor.seconds()
            elif self._uploading():
                self.waits_since = None if self._body_paused else self.site.reactor.seconds()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """A line of the head."""
        if self._lingering is None:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        if self._lingering is None:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        """The head is complete. 100 Continue is sent only for what is not already refused."""
        request: Request = self.requests[-1]
        self.persistent = self.checkPersistence(request, self._version)
        request.begin(self._command, self._path, self._version, self.length)
        if self._lingering is None and not request.startedWriting and self.length != 0:
            expect = request.requestHeaders.getRawHeaders(b"expect")
            if expect and expect[0].lower() == b"100-continue" and self._version == b"HTTP/1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def allContentReceived(self) -> None:
        """The body is complete."""
        if self._lingering is None:
            self._receiving = False
            self.waits_since = None
            super().allContentReceived()

    def pause_body(self) -> None:
        """Stop reading the body."""
        self._body_paused = True
        self.waits_since = None
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if self._body_paused:
            self._body_paused = False
            if self._receiving:
                self.waits_since = self.site.reactor.seconds()
            self._networkProducer.resumeProducing()

    def _uploading(self) -> bool:
        return self._receiving and bool(self.requests) and self.requests[-1].upload is not None

    # -- writing

    def cut(self) -> None:
        """Send what was written, then close, whatever the reply lacks; the sweep aborts a client that reads nothing."""
        self.waits_since = self.site.reactor.seconds()
        self.loseConnection()

    def pauseProducing(self) -> None:
        """The client takes replies too slowly. A body that is being received goes on: the store slows it, not we."""
        if self.blocked_since is None:
            self.blocked_since = self.site.reactor.seconds()
        self._waitingForTransport = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        if not self._handlingRequest and not self._uploading():
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        self.blocked_since = None
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        if not self._handlingRequest and not self._body_paused:
            self._networkProducer.resumeProducing()

    def requestDone(self, request: Request) -> None:  # noqa: N802 - Twisted's name
        """The reply is written."""
        if request.body_done:
            self.waits_since = self.site.reactor.seconds()
            super().requestDone(request)
        else:
            self._linger(request)

    def _linger(self, request: Request) -> None:
        """The reply came before the end of the body: close our side, discard what still comes, then close."""
        self.requests.remove(request)
        self.waits_since = None
        self._networkProducer.unregisterProducer()
        half_close = None if self.isSecure() else getattr(self.transport, "loseWriteConnection", None)
        if half_close is None:  # TLS cannot close one side
            self._lingering = self.callLater(LINGER_S, self.transport.loseConnection)
        else:
            half_close()
            self._lingering = self.callLater(LINGER_S, self.transport.abortConnection)
        self.transport.resumeProducing()


class Site(server.Site):
    """The factory of connections.

    Args:
        application: who handles requests.
        clock: for deadlines; injected.
        now_us: the wall clock, for the Date header.
        body_max_bytes: a body above this is answered with 413.
        connections_max: connections above this are closed at once.
    """

    _log = Logger()
    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        application: Application,
        clock: IReactorTime,
        now_us: Callable[[], int],
        *,
        body_max_bytes: int,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        # No resource tree and no idle timer per connection: `application` routes, the sweep times.
        super().__init__(None, reactor=clock, timeout=None, parsePOSTFormSubmission=False)
        self.application = application
        self.body_max_bytes = body_max_bytes
        self.budget = Budget(clock.seconds)
        self.body_hard_max_bytes = body_max_bytes * BODY_HARD_FACTOR
        self.connections_max = connections_max
        self.channels: set[Channel] = set()
        self.streams_body = application.streams_body
        self._now_us = now_us
        self._sweeping: LoopingCall | None = None
        self._date: tuple[int, bytes] = (-1, b"")
        self._ids_prefix = uuid4().hex[:12].encode()
        self._ids = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection, or None when there are too many."""
        if len(self.channels) >= self.connections_max:
            self._log.warn(
                "{count} connections are open: one more refused", count=len(self.channels), action="refused"
            )
            return None
        if self._sweeping is None:
            self._sweeping = LoopingCall(self._sweep)
            self._sweeping.clock = self.reactor
            self._sweeping.start(SWEEP_S, now=False)
        return super().buildProtocol(addr)

    def _sweep(self) -> None:
        now = self.reactor.seconds()
        for channel in list(self.channels):
            channel.check(now)
        if not self.channels:
            self.stop_sweeping()

    def stop_sweeping(self) -> None:
        """No connection, no timer: an idle daemon does not wake up for us."""
        if self._sweeping is not None:
            self._sweeping.stop()
            self._sweeping = None

    def startFactory(self) -> None:
        """No log file and no ticking log date: requests are counted, not written down."""

    def stopFactory(self) -> None:
        """The last port is closed."""
        self.stop_sweeping()

    def log(self, request: Request) -> None:  # type: ignore[override]
        """A request has been answered."""
        self.application.observe(request, self.reactor.seconds() - request.started_s)

    def date(self) -> bytes:
        """The Date header, made once a second."""
        second = self._now_us() // 1_000_000
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def next_request_id(self) -> bytes:
        """An id for a request that brought none: unique to this process and cheap."""
        self._ids += 1
        return b"%b-%x" % (self._ids_prefix, self._ids)
