"""F2: steps of flows carried out over an asynchronous httpx2 transport, on asyncio. No knowledge of the protocol.

As `httpx_wire`, whose transport it is the twin of: below httpx2's client, without redirects, cookies and proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import httpx2

from jobsvc.client.core import REPLY_S, Close, Exchange, Open, Opened, Pause, Read, Reply, Request, Step
from jobsvc.client.discovery import Target
from jobsvc.client.errors import Unreachable
from jobsvc.client.headers import common_headers
from jobsvc.client.httpx_wire import broken_by, head_of, message_of

KEPT_CONNECTIONS = 32
"""Idle ones kept open. Those in use are not counted: a coroutine that waits for a job may hold one for hours."""


class Body(NamedTuple):
    """A response being read."""

    response: httpx2.Response
    pieces: AsyncIterator[bytes]


class AsyncHttpxWire:
    """Carries out steps over an asynchronous httpx2 transport, for the tasks of one event loop."""

    def __init__(
        self, target: Target, transport: httpx2.AsyncBaseTransport | None, headers: Mapping[str, str]
    ) -> None:
        self._base = target.base
        self._transport = transport or httpx2.AsyncHTTPTransport(
            verify=target.base.startswith("https:"),
            uds=target.unix,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
        )
        self._headers = common_headers(target, headers)
        self._closed = False
        self._busy: set[asyncio.Task[Any]] = set()  # tasks that wait for a step
        self._cut: set[asyncio.Task[Any]] = set()  # those whose step was ended by `close`

    async def close(self) -> None:
        """Close all connections; steps that are being carried out end with `Unreachable`."""
        self._closed = True
        # Closing the transport would not wake who waits for it; cancelling does, and is turned into an answer below.
        self._cut |= self._busy
        for task in self._cut:
            task.cancel()
        await self._transport.aclose()

    async def carry_out(self, step: Step, bodies: dict[int, Body]) -> Any:
        """The answer to one step; bodies opened and not closed are kept in `bodies`. Raises `Broken`, `Unreachable`."""
        if self._closed:
            raise _closed(sent=False)
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        self._busy.add(task)
        try:
            return await self._carried_out(step, bodies)
        except asyncio.CancelledError:
            if task in self._cut:
                self._cut.discard(task)
                if task.uncancel() <= cancelled_before:  # by `close` alone
                    raise _closed(sent=True) from None
            raise
        finally:
            self._busy.discard(task)

    async def _carried_out(self, step: Step, bodies: dict[int, Body]) -> Any:
        if isinstance(step, Exchange):
            request = step.request
            body = await self._send(request, request.wait_s + REPLY_S)
            try:
                content = b"".join([piece async for piece in body.pieces])
            finally:
                await body.response.aclose()
            return Reply(body.response.status_code, head_of(body.response), content)
        if isinstance(step, Read):
            return await anext(step.handle.pieces, b"")
        if isinstance(step, Open):
            body = await self._send(step.request, step.quiet_s)
            bodies[id(body)] = body
            return Opened(body, body.response.status_code, head_of(body.response))
        if isinstance(step, Close):
            bodies.pop(id(step.handle), None)
            await step.handle.response.aclose()
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        return None

    async def release(self, bodies: dict[int, Body]) -> None:
        """Give back the connections of bodies that nobody reads on."""
        for body in bodies.values():
            await body.response.aclose()

    async def _send(self, request: Request, read_s: float) -> Body:
        message = message_of(self._base, self._headers, request, read_s)
        try:
            response = await self._transport.handle_async_request(message)
        except httpx2.TransportError as error:
            raise broken_by(error, self._base) from error
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        return Body(response, _guarded(stream))


async def _guarded(pieces: httpx2.AsyncByteStream) -> AsyncIterator[bytes]:
    """The pieces that hold something; a failure comes as `Broken`."""
    try:
        async for piece in pieces:
            if piece:
                yield piece
    except httpx2.TransportError as error:
        raise broken_by(error) from error


def _closed(*, sent: bool) -> Unreachable:
    return Unreachable("the client was closed", maybe_sent=sent)
