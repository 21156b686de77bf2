"""The edge on real sockets: one server behind TCP, TLS and a Unix socket, and a client that sends any bytes.

Time is the test's own clock: deadlines are reached by advancing it, never by waiting.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import protocol, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from jobsvc.http import limits
from jobsvc.http.channel import Channel
from tests.http.house import House
from tests.http.wire import TOKEN, Reply, parse_replies

Transport = Literal["tcp", "tls", "unix"]
TRANSPORTS: tuple[Transport, ...] = ("tcp", "tls", "unix")
LIMIT_S = 20.0
"""No answer after this: the test has failed."""
TURNS_MAX = 1000
"""Turns of the reactor until the server must have seen what lies in its socket."""
UNREAD_TURNS = 100
"""Turns after which a piece will not reach the server any more: it has stopped to read."""

AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()


class Talker(protocol.Protocol):
    """Sends, and keeps what it gets."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.ended = False
        self.closed: Deferred[None] = Deferred()
        self._wanted: Callable[[], bool] | None = None
        self._reached: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self._look()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.ended = True
        self._look()
        self.closed.callback(None)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def replies(self) -> list[Reply]:
        """The whole replies so far."""
        if b"\r\n\r\n" not in self.got:
            return []
        head_whole = self.got  # a head cut in the middle is not parsed
        try:
            return [reply for reply in parse_replies(head_whole, ended=self.ended) if reply.whole]
        except AssertionError:
            return []

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Returns when that holds, or when the connection has ended."""
        if wanted() or self.ended:
            return
        self._wanted, self._reached = wanted, Deferred()
        from twisted.internet import reactor

        await self._reached.addTimeout(LIMIT_S, cast("Any", reactor))

    async def replied(self, count: int = 1) -> list[Reply]:
        """So many whole replies, or fewer when the connection ended before."""
        await self.until(lambda: len(self.replies()) >= count)
        return self.replies()

    def _look(self) -> None:
        if self._reached is not None and (self.ended or (self._wanted is not None and self._wanted())):
            reached, self._reached, self._wanted = self._reached, None, None
            reached.callback(None)


class Counting(Channel):
    """Counts what the socket gives, once, however often it is handed around inside."""

    front: Front
    _again = False

    def setLineMode(self, extra: bytes = b"") -> None:  # noqa: N802 - Twisted's name
        self._again = bool(extra)
        super().setLineMode(extra)

    def dataReceived(self, data: bytes) -> None:
        if not self._again:
            self.front.received += len(data)
        self._again = False
        super().dataReceived(data)


class Front:
    """A house that listens on all three transports."""

    def __init__(self, folder: Path) -> None:
        from twisted.internet import reactor

        self._reactor = cast("Any", reactor)
        self.house = House()
        self.site = self.house.site
        self.received = 0
        self.site.protocol = self._counting  # type: ignore[assignment]
        key, self._certificate = _certificate()
        self._path = str(folder / "edge.sock")
        tls = ssl.PrivateCertificate.loadPEM(key + self._certificate).options()
        self._ports = {
            "tcp": self._reactor.listenTCP(0, self.site, interface="127.0.0.1"),
            "tls": self._reactor.listenSSL(0, self.site, tls, interface="127.0.0.1"),
            "unix": self._reactor.listenUNIX(self._path, self.site),
        }

    def _counting(self) -> Channel:
        """A connection that tells how much has come in."""
        channel = Counting()
        channel.front = self
        return channel

    async def close(self) -> None:
        for port in self._ports.values():
            await port.stopListening()
        self.house.close()

    def port(self, transport: Transport) -> int:
        """Where it listens."""
        number: int = self._ports[transport].getHost().port
        return number

    async def connect(self, transport: Transport) -> Talker:
        """A new connection."""
        number: Any = None if transport == "unix" else self.port(transport)
        endpoint: Any
        if transport == "tcp":
            endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", number)
        elif transport == "tls":
            trust = ssl.Certificate.loadPEM(self._certificate)
            endpoint = SSL4ClientEndpoint(
                self._reactor, "127.0.0.1", number, ssl.optionsForClientTLS("localhost", trust)
            )
        else:
            endpoint = UNIXClientEndpoint(self._reactor, self._path)
        talker = Talker()
        await connectProtocol(endpoint, talker)
        if transport != "unix":
            talker.transport.setTcpNoDelay(True)  # what is sent is there in the next turn, not after an ACK
        return talker

    async def ask(self, transport: Transport, data: bytes, count: int = 1) -> Talker:
        """Send these bytes on a new connection, and wait for so many replies or its end."""
        talker = await self.connect(transport)
        talker.send(data)
        await talker.replied(count)
        return talker

    async def turn(self) -> None:
        """One turn of the reactor."""
        await deferLater(self._reactor, 0)

    async def taken(self, talker: Talker, count: int) -> None:
        """Let the server take so many bytes in all, as long as it reads."""
        for _ in range(UNREAD_TURNS):
            if talker.ended or self.received >= count:
                break
            await self.turn()

    async def settle(self, seen: Callable[[], bool]) -> None:
        """Let the server see what was sent to it."""
        for _ in range(TURNS_MAX):
            if seen():
                return
            await self.turn()
        raise AssertionError("the server did not see it")

    async def ends(self, talker: Talker) -> bool:
        """Whether the server ends this connection by itself, at the latest when it has lingered."""
        for _ in range(TURNS_MAX):
            if talker.ended:
                return True
            self.house.after(limits.LINGER_S)
            await self.turn()
            if not self.site.channels and not talker.ended:
                await talker.closed
        return talker.ended

    async def hang_up(self, talker: Talker) -> None:
        """Close, and wait until both sides have noticed."""
        if not talker.ended:
            talker.transport.abortConnection()
            await talker.closed
        await self.settle(lambda: not self.site.channels)

    async def alive(self, transport: Transport) -> None:
        """The next good request on a new connection is answered."""
        talker = await self.ask(transport, b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n" + AUTH + b"\r\n")
        assert [reply.status for reply in talker.replies()] == [200]
        await self.hang_up(talker)


def _certificate() -> tuple[bytes, bytes]:
    """Key and self-signed certificate for `localhost`, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, certificate.public_bytes(serialization.Encoding.PEM)
