"""What waits in a worker to be sent: posted messages, and the streams of attempts as far as their credit goes.

F2, free of Twisted. Any thread may post; one at a time collects. It must not send: the link of a cpu worker and the
channel of an io worker do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from jobsvc.model.frames import Items, Log, Message
from jobsvc.model.limits import KIB, STREAM_WINDOW_BYTES

LOG_STREAM = "log"
"""The stream of output and log events; it has a window of its own, like every other."""
BATCH_BYTES = 32 * KIB
"""A stream that has so much waiting is sent before its producer goes on: thousands of small items per message, and
an eighth of the window, so that the store works on one batch while the next gathers."""


class Outlet:
    """One stream of one attempt: the JSON texts that wait to leave, and how many bytes of them may."""

    __slots__ = ("credit", "size", "stream", "texts")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.texts: list[bytes] = []
        self.size = 0
        self.credit = STREAM_WINDOW_BYTES

    def put(self, text: bytes) -> None:
        """One more."""
        self.texts.append(text)
        self.size += len(text) + 1

    def drop_last(self) -> None:
        """Forget the last one: for output that may not wait and has no room."""
        self.size -= len(self.texts.pop()) + 1

    def take(self, no: int, epoch: int) -> Message:
        """All of them as one message. They are counted as the daemon will count them when it gives credit back."""
        texts, self.texts, self.size = self.texts, [], 0
        body, count = b"\n".join(texts), len(texts)
        self.credit -= len(body)
        if self.stream == LOG_STREAM:
            return Log(no, epoch, count, 0, body)
        return Items(no, epoch, self.stream, count, 0, body)


class Source(Protocol):
    """What an outbox collects from: a running attempt."""

    stirred: bool
    """True while it waits to be collected from; owned by the outbox."""

    def take(self) -> list[Message]:
        """What may leave now."""


class Outbox:
    """Gathers what the attempts of this worker have to say.

    Args:
        wake: called when something was posted or stirred and nothing was waiting before; any thread.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake = wake
        self._posted: list[Message] = []
        self._sources: deque[Source] = deque()

    def __bool__(self) -> bool:
        return bool(self._posted or self._sources)

    def post(self, *messages: Message) -> None:
        """Send these, in this order, after what was posted before."""
        self._posted.extend(messages)
        if self._wake is not None:
            self._wake()

    def stir(self, source: Source) -> None:
        """This attempt has something to say."""
        if not source.stirred:
            source.stirred = True
            self._sources.append(source)
            if self._wake is not None:
                self._wake()

    def collect(self) -> list[Message]:
        """All that may leave now, in an order in which no output of an attempt follows its result."""
        # An attempt that ends posts its last output and its result in one go; so what was posted goes first, and what
        # is taken from attempts afterwards is older than any result of theirs that is not in this batch.
        count = len(self._posted)
        batch = self._posted[:count]
        del self._posted[:count]
        while self._sources:
            try:
                source = self._sources.popleft()
            except IndexError:  # the other collector was faster
                break
            source.stirred = False
            batch += source.take()
        return batch
