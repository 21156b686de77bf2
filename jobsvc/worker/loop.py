"""The executor `loop`: coroutines, async generators and functions that return a Deferred, all on the one event loop.

F2, on the thread of the io worker's reactor. Each attempt is a task of the loop; slots are the daemon's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextvars import Context
from threading import Condition, get_ident
from time import perf_counter
from typing import Any

from twisted.internet.defer import CancelledError

from jobsvc.authoring.context import Cancelled
from jobsvc.authoring.results import encode_result
from jobsvc.model.errors import JobError
from jobsvc.model.frames import Message, Start
from jobsvc.model.limits import MIB
from jobsvc.worker.attempt import Port, enter
from jobsvc.worker.blame import Exited, type_name, words_of
from jobsvc.worker.outbox import BATCH_BYTES, LOG_STREAM, Outbox, Outlet
from jobsvc.worker.running import OUT, Code, Ending, code_of, raised, result_text

HELD_LOG_MAX_BYTES = 1 * MIB
"""Output of one attempt that may wait for credit. `print` cannot wait on the loop: what comes then is counted only."""
HELD_ITEMS_MAX_BYTES = 8 * MIB
"""Items of one stream that may wait for credit. `ctx.emit` cannot wait on the loop, and items are never dropped."""

NOTHING = b"null"
"""The result of what returns nothing."""
CANCELS = (asyncio.CancelledError, CancelledError)
"""asyncio's and Twisted's: what a cancel raises depends on what was awaited."""


class StreamFull(Exception):
    """Too many items were emitted from the loop faster than they could be stored."""


class LoopPort(Port):
    """The way out of an attempt on the loop.

    Args:
        drain: sends what waits, at once.
    """

    __slots__ = ("_drain", "_dropped", "_thread", "_waiter")

    def __init__(self, start: Start, outbox: Outbox, drain: Callable[[], None]) -> None:
        super().__init__(start, outbox, Condition())
        self._drain = drain
        self._dropped = 0
        self._thread = get_ident()
        self._waiter: asyncio.Future[None] | None = None

    def press(self, outlet: Outlet) -> None:
        """Never waits, save in other threads that the attempt uses.

        Raises:
            StreamFull: more than `HELD_ITEMS_MAX_BYTES` of items wait.
        """
        if outlet.size < BATCH_BYTES:
            return  # it leaves at the end of this turn of the loop
        if get_ident() != self._thread:
            super().press(outlet)
            return
        self._drain()
        if outlet.stream == LOG_STREAM:
            if outlet.size > HELD_LOG_MAX_BYTES:
                outlet.drop_last()
                self._dropped += 1
        elif outlet.size > HELD_ITEMS_MAX_BYTES:
            raise StreamFull(
                f"{HELD_ITEMS_MAX_BYTES >> 20} MiB of items wait to be stored, and emit cannot wait on the loop: "
                "yield them from an async generator instead"
            )

    async def room_in(self, stream: str) -> None:
        """Wait until the stream can take more; gives the others a turn in any case when a batch is complete."""
        outlet = (self._outlets or {})[stream]
        if outlet.size < BATCH_BYTES and outlet.credit > 0:
            return
        self._drain()
        while outlet.size >= BATCH_BYTES:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        await asyncio.sleep(0)

    def take(self) -> list[Message]:
        """What may leave now."""
        taken = super().take()
        if self._dropped and not (self._outlets or {})[LOG_STREAM].texts:
            self._tell_dropped()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return taken

    def leave(self) -> None:
        """The last output."""
        if self._dropped:
            self._tell_dropped()
        super().leave()

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self.log("warning", f"{dropped} lines of output came faster than they could be stored", b"{}", "task")

    def later(self, after_s: float) -> None:
        """Runs on the loop, as `take` does."""
        asyncio.get_running_loop().call_later(after_s, self.outbox.stir, self)


class LoopExecutor:
    """See the module.

    Args:
        codes: by name of the task.
        on_end: told when an attempt has ended and its result is posted.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, codes: Mapping[str, Code], on_end: Callable[[Port], None]
    ) -> None:
        self._loop = loop
        self._codes = codes
        self._on_end = on_end
        self._tasks: dict[Port, asyncio.Task[None]] = {}

    def start(self, port: LoopPort) -> None:
        """Run an attempt that has begun; its first step comes in the next turn of the loop."""
        # A context of its own, in which everything that it starts belongs to it, from the very first step on.
        context = Context()
        context.run(enter, port, None)
        self._tasks[port] = task = self._loop.create_task(self._attempt(port), context=context)
        task.add_done_callback(lambda done: self._ended(port, done))

    def cancel(self, port: Port) -> None:
        """Make the await in which the attempt hangs raise `CancelledError`."""
        task = self._tasks.get(port)
        if task is not None:
            task.cancel()

    def _ended(self, port: Port, task: asyncio.Task[None]) -> None:
        del self._tasks[port]
        if not port.closed:
            # Cancelled before its first step, or an error of ours: the attempt must not stay open either way.
            cause = None if task.cancelled() else task.exception()
            early: Ending = (JobError("cancelled"), b"", None)
            port.finish(0.0, *(early if cause is None else raised(cause, port, self._codes)))
        self._on_end(port)

    async def _attempt(self, port: LoopPort) -> None:
        began = perf_counter()
        ending: Ending
        try:
            ending = None, await self._run(port), None
        except CANCELS as cancel:
            ending = JobError("cancelled", type_name(cancel), words_of(cancel, port.veil)), b"", None
        except (Exception, Exited, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever authors raise
            ending = raised(error, port, self._codes)
        port.finish(perf_counter() - began, *ending)

    async def _run(self, port: LoopPort) -> bytes:
        code = code_of(self._codes, port)
        value = code.call(port)
        if code.kind == "async_generator":
            await self._stream(value, port)
            return NOTHING
        if isinstance(value, Awaitable):
            value = await value
        return result_text(value)

    async def _stream(self, generator: AsyncGenerator[Any, None], port: LoopPort) -> None:
        """Every yield is an item of `out`; an async generator returns nothing."""
        try:
            async for value in generator:
                port.item(OUT, encode_result(value))
                await port.room_in(OUT)
                if port.cancel_reason is not None:
                    raise Cancelled("stopped at a yield")
        finally:
            await generator.aclose()
