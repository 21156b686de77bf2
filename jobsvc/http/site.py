"""F3: the HTTP server: its connections, their number and their deadlines. What a request means is the application's.

Twisted has no deadline for a whole request and no cap on connections; they are here. One sweep looks over all
connections, so that a request costs no timers.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from uuid import uuid4

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web import server

from jobsvc.http.budget import Budget
from jobsvc.http.channel import Channel
from jobsvc.http.crowd import Crowd, Refusal, connections_allowed, counted_address, may_be_told
from jobsvc.http.limits import BODY_HARD_FACTOR, REFUSAL_LOG_S, SWEEP_ALL_S, SWEEP_S
from jobsvc.http.problems import MEDIA, encoded
from jobsvc.http.request import Request, status_line
from jobsvc.model.errors import JobsvcError


class Application(Protocol):
    """Who handles requests."""

    def admit(self, request: Request) -> None:
        """Raise `JobsvcError` for a request that its head alone refuses. Called for each, before its body is read."""

    def handle(self, request: Request) -> None:
        """Answer it, now or later. Called when its body is complete, or at its head for a streamed one."""

    def streams_body(self, method: bytes, path: bytes) -> bool:
        """Whether this request's body is taken as it arrives."""

    def observe(self, request: Request, elapsed_s: float) -> None:
        """A request has been answered."""


class Site(server.Site):
    """The factory of connections.

    Args:
        application: who handles requests.
        clock: for deadlines; injected.
        now_us: the wall clock, for the Date header.
        body_max_bytes: a body above this is answered with 413.
        connections_max: connections there may be at once; None = what the process has open files for.
        behind_proxy: a proxy of our own is in front: the client is who its X-Forwarded-For names last, and connections
            are not counted by address.

    Attributes:
        channels: all connections.
        receiving: those of them that may be in the middle of a request.
        held_bytes: of large replies that are not written to their end.
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
        connections_max: int | None = None,
        behind_proxy: bool = False,
    ) -> None:
        # No resource tree and no idle timer per connection: `application` routes, the sweep times.
        super().__init__(None, reactor=clock, timeout=None, parsePOSTFormSubmission=False)
        self.application = application
        self.body_max_bytes = body_max_bytes
        self.budget = Budget(clock.seconds)
        self.body_hard_max_bytes = body_max_bytes * BODY_HARD_FACTOR
        self.behind_proxy = behind_proxy
        self.crowd = Crowd(connections_allowed() if connections_max is None else connections_max)
        self.channels: set[Channel] = set()
        self.receiving: set[Channel] = set()
        self.streams_body = application.streams_body
        self.held_bytes = 0
        self._refusals: set[Refusal] = set()
        self._refusal_logged_s: float | None = None
        self._now_us = now_us
        self._sweeping: LoopingCall | None = None
        self._all_swept_s = 0.0
        self._date: tuple[int, bytes] = (-1, b"")
        self._ids_prefix = uuid4().hex[:12].encode()
        self._ids = 0

    # -- connections

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection, or what turns it away when there are too many."""
        address = None if self.behind_proxy else counted_address(addr)
        if not self.crowd.room_for(address):
            return self._refusal("This address has too many connections without an authorised request.")
        if len(self.channels) >= self.crowd.places:
            oldest = self.crowd.gives_way()
            if oldest is None:
                return self._refusal("Too many connections are open.")
            self.forget(oldest)
            oldest.transport.abortConnection()
        if self._sweeping is None:
            self._sweeping = LoopingCall(self._sweep)
            self._sweeping.clock = self.reactor
            self._sweeping.start(SWEEP_S, now=False)
            self._all_swept_s = self.reactor.seconds()
        channel: Any = super().buildProtocol(addr)
        channel.address = address
        return channel

    def arrived(self, channel: Channel) -> None:
        """A connection is open."""
        self.channels.add(channel)
        self.crowd.came(channel)

    def forget(self, channel: Channel) -> None:
        """A connection is gone, or as good as gone."""
        self.channels.discard(channel)
        self.receiving.discard(channel)
        self.crowd.proved(channel)

    def _refusal(self, why: str) -> Refusal:
        now = self.reactor.seconds()
        if self._refusal_logged_s is None or now - self._refusal_logged_s >= REFUSAL_LOG_S:
            self._refusal_logged_s = now
            self._log.warn(
                "{count} connections are open, one more is refused: {why}",
                count=len(self.channels),
                why=why,
                action="refused",
            )
        reply = self._overloaded(why) if may_be_told(self._refusals) else b""
        return Refusal(reply, self.reactor, self._refusals)

    def _overloaded(self, why: str) -> bytes:
        """A whole reply, made without a request."""
        instance = self.next_request_id()
        body = encoded(JobsvcError("overloaded", why, retry_after_s=1), instance.decode())
        return (
            b"%bRetry-After: 1\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (
                status_line(503, instance, self.date()),
                MEDIA,
                len(body),
                body,
            )
        )

    # -- time

    def _sweep(self) -> None:
        now = self.reactor.seconds()
        if now - self._all_swept_s < SWEEP_ALL_S:
            for channel in list(self.receiving):
                if channel.between_requests:
                    self.receiving.discard(channel)
                else:
                    channel.check(now)
            return
        self._all_swept_s = now
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
