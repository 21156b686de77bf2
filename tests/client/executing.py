"""An executor under test: its daemon is played by a transport on its own thread, which a test may hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import httpx2

from jobsvc import Context, command, task
from jobsvc.client import (
    Client,
    JobExecutor,
    Retry,
    Session,
)
from tests.client.fake_daemon import TOKEN, URL, FakeDaemon, problem, transport

BUSY = problem(429, "queue_full", "full", retry_safe=True, retry_after_s=0.0)
DEADLINE_S = 30.0
"""What would hang fails instead."""


@task(name="add")
def add(a: int, ctx: Context, b: int = 0, *, c: int = 0) -> int:
    """Stands for a user's task."""
    return a + b + c


listing = command("listing", ["ls", "{folder}"])


def fast(tries: int = 4) -> Session:
    """Delays of nothing, keys k."""
    return Session(retry=Retry(uniform=lambda low, _high: low, tries=tries, base_s=0.0), new_key=lambda: "k")


class Gate:
    """A daemon whose next bulk submit is held until the test lets it go."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.reached = Event()
        self.release = Event()

    def transport(self) -> httpx2.MockTransport:
        inner = transport(self.daemon)

        def handle(request: httpx2.Request) -> httpx2.Response:
            self.reached.set()
            assert self.release.wait(DEADLINE_S)
            return inner.handle_request(request)

        return httpx2.MockTransport(handle)


@contextmanager
def executor_of(
    daemon: FakeDaemon,
    made: httpx2.MockTransport | None = None,
    session: Session | None = None,
    **options: Any,
) -> Iterator[JobExecutor]:
    """An executor of a client that is closed already: it has connections of its own."""
    with Client(URL, TOKEN, session=session or fast(), transport=transport(daemon)) as client:
        executor = client.executor(transport=made or transport(daemon), **options)
    with executor:
        yield executor
