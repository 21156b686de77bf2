"""F2: steps of flows carried out over an httpx2 transport, blocking. Holds no knowledge of the protocol.

The transport is used directly, below httpx2's `Client`: no redirects (a token must not follow one), no cookies, no
proxies, and two thirds of the cost per request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx2

from jobsvc.client.core import (
    CONNECT_S,
    REPLY_S,
    UPLOAD_S,
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

CONNECTIONS = 100
"""Of one client, over all threads that share it; each live stream takes one."""


class Body(NamedTuple):
    """A response being read."""

    response: httpx2.Response
    pieces: Iterator[bytes]


class HttpxWire:
    """Carries out steps over an httpx2 transport. Shared by threads: it keeps nothing between steps."""

    def __init__(
        self,
        target: Target,
        transport: httpx2.BaseTransport | None,
        pause: Callable[[float], object],
        headers: Mapping[str, str],
    ) -> None:
        self._base = target.base
        # Making a TLS context reads the system's certificates: tens of milliseconds that plain HTTP need not pay.
        self._transport = transport or httpx2.HTTPTransport(
            verify=target.base.startswith("https:"),
            uds=target.unix,
            limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )
        self._headers = common_headers(target, headers)
        self._pause = pause

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def carry_out(self, step: Step, bodies: dict[int, Body]) -> Any:
        """The answer to one step; bodies opened and not closed are kept in `bodies`. Raises `Broken`."""
        if isinstance(step, Exchange):
            request = step.request
            body = self._send(request, request.wait_s + REPLY_S)
            try:
                content = b"".join(body.pieces)
            finally:
                body.response.close()
            return Reply(body.response.status_code, head_of(body.response), content)
        if isinstance(step, Read):
            return next(step.handle.pieces, b"")
        if isinstance(step, Open):
            body = self._send(step.request, step.quiet_s)
            bodies[id(body)] = body
            return Opened(body, body.response.status_code, head_of(body.response))
        if isinstance(step, Close):
            bodies.pop(id(step.handle), None)
            step.handle.response.close()
        elif isinstance(step, Pause):
            self._pause(step.seconds)
        return None

    def _send(self, request: Request, read_s: float) -> Body:
        message = message_of(self._base, self._headers, request, read_s)
        try:
            response = self._transport.handle_request(message)
        except httpx2.TransportError as error:
            raise broken_by(error, self._base) from error
        stream = response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        return Body(response, _guarded(iter(stream)))


def _guarded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces that hold something; a failure comes as `Broken`."""
    try:
        for piece in pieces:
            if piece:
                yield piece
    except httpx2.TransportError as error:
        raise broken_by(error) from error


def message_of(base: str, headers: Mapping[str, str], request: Request, read_s: float) -> httpx2.Request:
    """The request as httpx2 sends it; `read_s` is the longest silence allowed."""
    return httpx2.Request(
        request.method,
        base + request.target,
        headers={**headers, **request.headers},
        content=request.body,
        extensions={
            "timeout": {"connect": CONNECT_S, "pool": REPLY_S, "read": read_s, "write": UPLOAD_S},
        },
    )


def head_of(response: httpx2.Response) -> dict[str, str]:
    """Its headers; names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def broken_by(error: httpx2.TransportError, base: str = "") -> Broken:
    """A failure of the transport in the words of the core."""
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    silent = isinstance(error, httpx2.ReadTimeout)
    what = f"cannot reach the daemon at {base}" if unsent else "the connection to the daemon broke"
    return Broken(f"{what}: {str(error) or type(error).__name__}", sent=not unsent, silent=silent)
