"""The control channel of an io worker, on its event loop: messages in, batches out.

F2. It is an asyncio transport, since the reactor runs on asyncio: what is sent leaves with one system call at the end
of the turn in which it was posted. Knows nothing of tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import get_ident
from typing import cast

from jobsvc.model.frames import Deframer, Message, ToWorker, encode
from jobsvc.worker.outbox import Outbox


class Channel(asyncio.Protocol):
    """See the module. Made on the thread of the loop.

    `on_messages` is called with all messages of one read, `on_lost` once: the daemon has closed its end, or `close` has
    sent everything. They are set before the loop runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_messages: Callable[[list[Message]], None]
        self.on_lost: Callable[[], None]
        self._loop = loop
        self._thread = get_ident()
        self._deframer = Deframer(ToWorker)
        self._transport: asyncio.Transport | None = None
        self._awake = False  # a drain is on its way
        self.outbox = Outbox(self._wake)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)
        self.drain()

    def data_received(self, data: bytes) -> None:
        """The daemon has sent something.

        Raises:
            FrameError: what came is no frame; the loop reports it and closes the channel.
        """
        messages = self._deframer.feed(data)
        if messages:
            self.on_messages(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self.on_lost()

    def _wake(self) -> None:
        """Something waits. Any thread; one wake-up for all that gathers until the loop comes round."""
        if self._awake:
            return
        self._awake = True
        if get_ident() == self._thread:
            self._loop.call_soon(self.drain)
        else:
            self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Send all that may leave, at once. Runs on the loop."""
        self._awake = False
        if self._transport is not None:
            batch = self.outbox.collect()
            if batch:
                self._transport.write(encode(batch))

    def close(self) -> None:
        """Send what waits, then close."""
        self.drain()
        if self._transport is not None:
            self._transport.close()
