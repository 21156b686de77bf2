"""F2: the thread behind an executor: one event loop that joins lines into requests and hands outcomes to futures.

A line waits for nothing but the request before it: the first goes at once, and what comes until the daemon has named
its jobs goes together. A request follows its jobs to their end. Of these only `FOLLOWED` are kept open; the jobs of
the others are asked for together, by id, so that thousands of futures take a handful of connections.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from itertools import islice
from logging import getLogger
from typing import Any

from jobsvc.client import calls
from jobsvc.client.asking import Asker
from jobsvc.client.asynchronous import FlowRunner
from jobsvc.client.bulk import BATCH_BYTES, BATCH_LINES
from jobsvc.client.core import Session
from jobsvc.client.errors import ClientError, Refused
from jobsvc.client.flows import ask
from jobsvc.client.followed import Followed, JobFuture
from jobsvc.client.httpx_async_wire import AsyncHttpxWire
from jobsvc.client.replies import stranger
from jobsvc.client.shapes import Problem

UNSENT_LINES = 32_768
"""Lines that wait to be sent; then `submit` waits. Four of the largest requests: more would only grow memory."""
UNSENT_BYTES = 16 * 1024 * 1024
"""The same by size, for large arguments."""
FOLLOWED = 8
"""Requests kept open until their jobs have ended. When one more is needed, that with the fewest jobs gives way."""
CANCELLING = 4
"""Requests at a time that cancel jobs."""
_DONE_CODES = frozenset(("conflict", "not_found", "purged"))
"""Answers to a cancel that came too late."""

_log = getLogger(__name__)


class ExecutorLoop(FlowRunner):
    """The thread, its loop, and the futures it works for. `put`, `withdraw` and `close` may be called by any thread.

    Runs on: a thread of its own, which ends after `close` when every future is done. Callbacks of futures run there.
    """

    def __init__(self, session: Session, wire: AsyncHttpxWire) -> None:
        super().__init__(wire)
        self._wire = wire
        self._session = session
        self._room = threading.Condition()  # guards what other threads look at: the next six
        self._unsent: dict[JobFuture, None] = {}  # in order
        self._unsent_bytes = 0
        self._delayed = 0  # refused for load, to be sent again; they count as unsent
        self._closed = False
        self._asleep = False
        self._over = False
        self.pending: set[JobFuture] = set()
        self._number = 1  # of the next line, for messages
        self._flights: dict[Followed, asyncio.Task[None]] = {}
        self._asker = Asker(session, lambda flow: self._start(self._returned(flow)))
        self._to_cancel: deque[JobFuture] = deque()
        self._cancelling = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="jobsvc-executor", daemon=True)
        self._thread.start()

    # -- called by any thread

    def put(self, future: JobFuture) -> None:
        """Send its line with the next request; waits while too much is unsent.

        Raises:
            RuntimeError: closed.
        """
        with self._room:
            while not self._closed and self._full() and not self._is_own():
                self._room.wait()
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.pending.add(future)
            self._unsent[future] = None
            self._unsent_bytes += len(future.line)
            if not self._asleep:
                return
            self._asleep = False
        self._loop.call_soon_threadsafe(self._wake.set)

    def withdraw(self, future: JobFuture) -> None:
        """A future that was just cancelled: its line is not sent, or its job is cancelled too."""
        with self._room:
            if future.withdrawn:
                return
            future.withdrawn = True
            self.pending.discard(future)
            unsent = future in self._unsent
            if unsent:
                del self._unsent[future]
                self._unsent_bytes -= len(future.line)
                self._room.notify()
            elif not self._over:
                self._loop.call_soon_threadsafe(self._withdrawn, future)
        future.set_running_or_notify_cancel()  # tells those in `concurrent.futures.wait`

    def close(self) -> None:
        """Take no more; the thread ends when all is done."""
        with self._room:
            if self._closed:
                return
            self._closed = True
            self._room.notify_all()
        self._loop.call_soon_threadsafe(self._wake.set)

    def join(self) -> None:
        """Wait for the end of the thread; at once when called by a callback of a future, which runs there."""
        if not self._is_own():
            self._thread.join()

    def _full(self) -> bool:
        return len(self._unsent) + self._delayed >= UNSENT_LINES or self._unsent_bytes >= UNSENT_BYTES

    def _is_own(self) -> bool:
        """Whether this is the thread itself, in a callback: it must never wait for itself."""
        return threading.get_ident() == self._thread.ident

    # -- the thread

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            self._loop.run_until_complete(self._run())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._room:
                self._closed = self._over = True
                self._room.notify_all()
            for future in list(self.pending):  # none, unless something broke here
                future.settle(ClientError(f"the executor's thread ended: {failure!r}"))
            self._loop.close()

    async def _run(self) -> None:
        try:
            while await self._anything():
                futures = self._taken()
                if futures:
                    await self._send(futures)
        finally:
            left = list(self._tasks)  # none, unless something broke here
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._wire.close()

    async def _anything(self) -> bool:
        """Wait until there is something to send. False when nothing is left and nothing more will come."""
        while True:
            self._wake.clear()
            with self._room:
                if self._unsent:
                    return True
                if self._closed and not self._delayed and not self._tasks:
                    return False
                self._asleep = True
            await self._wake.wait()

    def _taken(self) -> list[JobFuture]:
        """The futures of the next request, in order."""
        with self._room:
            self._asleep = False
            taken: list[JobFuture] = []
            size = 0
            for future in islice(self._unsent, BATCH_LINES):
                taken.append(future)
                size += len(future.line)
                if size >= BATCH_BYTES:
                    break
            if len(taken) == len(self._unsent):
                self._unsent.clear()
            else:
                for future in taken:
                    del self._unsent[future]
            self._unsent_bytes -= size
            self._room.notify_all()
        return taken

    async def _send(self, futures: Sequence[JobFuture]) -> None:
        """Send a request; returns when its jobs are named, while it goes on to follow them."""
        if len(self._flights) >= FOLLOWED:
            self._flights.pop(min(self._flights, key=lambda flight: flight.open)).cancel()
        named = asyncio.Event()
        flight = Followed(self._session, futures, self._number, named.set)
        self._number += len(futures)
        self._flights[flight] = self._start(self._fly(flight, named))
        await named.wait()
        if flight.named:
            self._session = self._session.patient  # it was there: when it is not, it probably restarts
        self._sort_out(flight)

    async def _fly(self, flight: Followed, named: asyncio.Event) -> None:
        try:
            await self._returned(flight.fly())
        except Exception as error:  # noqa: BLE001 - goes to every future whose job it concerns
            for future in flight.left():
                future.settle(error)
        finally:
            self._flights.pop(flight, None)
            named.set()
            self._sort_out(flight)
            self._ask_for(flight.left())

    def _sort_out(self, flight: Followed) -> None:
        """What its names have brought up: lines to be sent again, jobs that nobody wants any more."""
        late, flight.late = flight.late, []
        for future in late:
            self._cancel(future)
        busy, flight.busy = flight.busy, []
        for future, problem in busy:
            self._send_again(future, problem)

    def _send_again(self, future: JobFuture, problem: Problem) -> None:
        """A line refused for load: after as long as the daemon asks for, with whatever goes then."""
        future.tried += 1
        delay_s = self._session.patient.retry.after_problem(future.tried, problem, None, repeatable=True)
        if delay_s is None:
            future.settle(Refused(problem))
            return
        with self._room:
            self._delayed += 1
        self._loop.call_later(delay_s, self._due, future)

    def _due(self, future: JobFuture) -> None:
        with self._room:
            self._delayed -= 1
            if future.withdrawn:
                self._room.notify()
            else:
                self._unsent[future] = None
                self._unsent_bytes += len(future.line)
        self._wake.set()

    def _withdrawn(self, future: JobFuture) -> None:
        """Its owner gave it up after it was sent."""
        flight = future.followed
        if flight is not None:
            flight.forget(future)
            task = self._flights.get(flight)
            if task is not None and flight.named and not flight.open:
                task.cancel()
        if future.leave is not None:
            future.leave()
        if future.job_id is not None:
            self._cancel(future)

    def _cancel(self, future: JobFuture) -> None:
        self._to_cancel.append(future)
        if self._cancelling < CANCELLING:
            self._cancelling += 1
            self._start(self._cancel_some())

    def _ask_for(self, futures: Iterable[JobFuture]) -> None:
        """Wait for jobs whose request no longer follows them."""
        for future in futures:
            future.followed = None
            if future.job_id is None:
                future.settle(stranger("a line has neither an id nor a problem"))
            else:
                future.leave = self._asker.watch(future.job_id, future.ended)

    async def _cancel_some(self) -> None:
        """Ask the daemon to stop jobs whose futures were cancelled; best effort, so a failure is only logged."""
        try:
            while self._to_cancel:
                future = self._to_cancel.popleft()
                try:
                    await self._returned(ask(self._session, calls.cancel(future.job_id or "")))
                except ClientError as error:
                    if not isinstance(error, Refused) or error.code not in _DONE_CODES:
                        _log.warning("job %s could not be cancelled: %s", future.job_id, error)
        finally:
            self._cancelling -= 1

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
