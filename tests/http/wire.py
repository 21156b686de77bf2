"""A connection to a Site in memory: bytes in, replies out, with all that a socket can do to a server."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from jobsvc.http.channel import Channel
from jobsvc.http.site import Site

TOKEN = "jobsvc_test.secret"


class Reply(msgspec.Struct):
    """One parsed reply. `whole`: its end was seen, by its length, its last chunk or a close that was announced."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.body.split(b"\n") if line]


class MemoryTransport(StringTransport):
    """A socket whose client can be slow, leave, or close one side."""

    def __init__(self, peer: IPv4Address | IPv6Address) -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "127.0.0.1", 8787), peerAddress=peer)
        self.half_closed = False
        self.aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Wire:
    """One connection. `sent` is all that the server wrote."""

    def __init__(self, site: Site, peer: str = "127.0.0.1") -> None:
        address = (IPv6Address if ":" in peer else IPv4Address)("TCP", peer, 50000)
        self.transport = MemoryTransport(address)
        self.site = site
        self.channel: Any = site.buildProtocol(address)
        self.welcome = isinstance(self.channel, Channel)
        self.channel.makeConnection(self.transport)

    # -- the client's side

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> None:
        """Send one whole request. A header whose value is empty is left out."""
        given = {"Host": "localhost"}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        if body:
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        elif method == "POST":
            given["Content-Length"] = "0"
        given |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)

    def leave(self) -> None:
        """The client closes the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def drop(self) -> None:
        """The transport reports an abort that the server asked for."""
        assert self.transport.aborted
        self.channel.connectionLost(Failure(ConnectionAborted()))

    # -- what came back

    @property
    def sent(self) -> bytes:
        value: bytes = self.transport.value()
        return value

    def replies(self) -> list[Reply]:
        """All replies so far; the last one may not be whole."""
        return parse_replies(self.sent, ended=self.transport.disconnecting)

    def reply(self) -> Reply:
        """The only reply, whole."""
        [reply] = self.replies()
        assert reply.whole, reply
        return reply


def parse_replies(rest: bytes, *, ended: bool) -> list[Reply]:
    """All replies in these bytes; the last one may not be whole.

    Args:
        ended: the server has closed its side: a reply without length is whole then.
    """
    out: list[Reply] = []
    while rest:
        head, found, rest = rest.partition(b"\r\n\r\n")
        assert found, head
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            continue
        if "content-length" in headers:
            length = int(headers["content-length"])
            body, rest = rest[:length], rest[length:]
            out.append(Reply(status, headers, body, len(body) == length))
        elif "transfer-encoding" in headers:
            body, rest, whole = _unchunked(rest)
            out.append(Reply(status, headers, body, whole))
        elif status in (204, 304):
            out.append(Reply(status, headers, b"", whole=True))
        else:
            out.append(Reply(status, headers, rest, ended))
            rest = b""
    return out


def _unchunked(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while data:
        size_text, _, data = data.partition(b"\r\n")
        size = int(size_text, 16)
        if not size:
            return body, data[2:], True
        body, data = body + data[:size], data[size + 2 :]
    return body, b"", False


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
