"""F2: the client without I/O: requests and replies as values, conversations as generators.

A *flow* is a generator that yields what it needs done (`Exchange`, `Open`, `Read`, `Close`, `Pause`, `Emit`) and is
sent the answer. It holds all the knowledge of the protocol: retries, waiting, resuming, order. A *face* (blocking,
Twisted) only carries the steps out, and throws `Broken` into the flow when a connection fails.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from jobsvc.client.retrying import Retry

T = TypeVar("T")

REPLY_S = 30.0
"""How long the daemon may take to answer, beyond what it was asked to wait: a commit behind a long queue of commits."""
CONNECT_S = 5.0
"""A daemon on this machine accepts at once; one further away has time for lost packets."""
UPLOAD_S = 60.0
"""How long the daemon may stop reading an upload: its store holds it back when it is busy."""
USER_AGENT = "jobsvc-client"
RECONNECTS = 30
"""Tries in a row, without a single byte in between, before a daemon that was there is given up: about a minute, which
is a slow restart."""


class Request(NamedTuple):
    """One HTTP request. `target` is path and query; `wait_s`: how long the daemon may hold the reply, on top of
    `REPLY_S`.

    `repeatable` says that sending it twice does no more than sending it once.
    """

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    wait_s: float = 0.0
    repeatable: bool = False


class Reply(NamedTuple):
    """One whole HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Opened(NamedTuple):
    """A response whose body is still to be read, through `handle`, which only the face understands."""

    handle: Any
    status: int
    headers: Mapping[str, str]


class Broken(Exception):
    """The connection failed. `sent`: the request may have arrived. `silent`: nothing came for too long."""

    def __init__(self, message: str, *, sent: bool, silent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.silent = silent


class Exchange(NamedTuple):
    """Send it and read the whole reply. Answer: `Reply`."""

    request: Request


class Open(NamedTuple):
    """Send it and read the head of the reply; `quiet_s` is the longest silence allowed. Answer: `Opened`."""

    request: Request
    quiet_s: float


class Read(NamedTuple):
    """The next piece of a body. Answer: bytes, empty at its clean end."""

    handle: Any


class Close(NamedTuple):
    """Done with a body, wherever it stands. Answer: None."""

    handle: Any


class Pause(NamedTuple):
    """Wait. Answer: None."""

    seconds: float


class Emit(NamedTuple):
    """Values for the reader, in order. Answer: None, once they are taken."""

    values: list[Any]


Step: TypeAlias = Exchange | Open | Read | Close | Pause | Emit
Flow: TypeAlias = Generator[Step, Any, T]


class Running(Protocol):
    """A flow that is being run: a Deferred, a task."""

    def cancel(self) -> Any:
        """Give it up."""


class Session:
    """What flows know of their surroundings.

    Args:
        retry: when to try again, and after how long.
        clock: seconds that never step back, for waits.
        new_key: makes the idempotency key of a submit that names none.
    """

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_key: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self.retry = retry or Retry(uniform=random.uniform)
        self.clock = clock
        self.new_key = new_key

    @property
    def patient(self) -> Session:
        """The same for a daemon that was there a moment ago: it is probably restarting, which may take a minute."""
        return Session(
            retry=replace(self.retry, tries=max(RECONNECTS, self.retry.tries)),
            clock=self.clock,
            new_key=self.new_key,
        )


def read_all(opened: Opened) -> Flow[Reply]:
    """The rest of a body, when it turns out to be a plain reply."""
    parts: list[bytes] = []
    while piece := (yield Read(opened.handle)):
        parts.append(piece)
    yield Close(opened.handle)
    return Reply(opened.status, opened.headers, b"".join(parts))
