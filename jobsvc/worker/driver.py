"""Lets a coroutine on the asyncio loop await asyncio's futures and Twisted's Deferreds alike, in its child tasks too.

F2. `task_factory` makes the tasks of a loop drive their coroutines through here: what the coroutine waits for is handed
to asyncio as it is, or, if it is a Deferred, as a future that ends with it. So `create_task`, `gather`, `wait_for`,
`TaskGroup` and timeouts work over both kinds, and a cancel reaches both.

Coroutines that Twisted itself steps (`Deferred.fromCoroutine`) still await Deferreds only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import CodeType, FrameType
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred, DeferredList

from jobsvc.worker.attempt import current_port
from jobsvc.worker.blame import Exited, exit_status
from jobsvc.worker.mark import Mark

AnyCoroutine: TypeAlias = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]


_DEFERRED_LIST: Any = DeferredList
"""A class; Twisted's annotations make a function of it."""


class Factory(Protocol):
    """What `loop.set_task_factory` takes."""

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: AnyCoroutine, /, **options: Any
    ) -> asyncio.Task[Any]:
        """A task that drives this coroutine."""


def task_factory(mark: Mark) -> Factory:
    """Makes tasks that drive their coroutines.

    Args:
        mark: shows whose step runs, while it runs: who holds up the loop is read from it.
    """

    def make(
        loop: asyncio.AbstractEventLoop, coroutine: AnyCoroutine, /, **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(Driven(coroutine, mark), loop=loop, **options)

    return make


class Driven:
    """The coroutine that asyncio sees: steps the author's one.

    asyncio takes it for a coroutine, as it has the methods of one. Its `send` and `throw` are those of a running
    generator, so that a step costs no further Python call.
    """

    __slots__ = ("__name__", "__qualname__", "_coroutine", "_steps", "close", "send", "throw")

    def __init__(self, coroutine: AnyCoroutine, mark: Mark) -> None:
        steps = _steps(coroutine, mark)
        # Run up to its first yield: only then do `throw` and `close` reach the author's coroutine, so that a task
        # cancelled before its first step leaves no coroutine that was never awaited.
        next(steps)
        self._coroutine = coroutine
        self._steps = steps
        self.send = steps.send
        self.throw = steps.throw
        self.close = steps.close
        self.__name__ = getattr(coroutine, "__name__", type(coroutine).__name__)
        self.__qualname__ = getattr(coroutine, "__qualname__", self.__name__)

    def __await__(self) -> Generator[Any, Any, Any]:
        """A coroutine can be awaited, too. It is no iterator: asyncio would step it by `__next__`, a call more."""
        return self._steps

    # What debuggers, `Task.get_stack` and `Task.__repr__` look at: the author's coroutine, not the driver.

    @property
    def cr_code(self) -> CodeType | None:
        """Code of the author's coroutine."""
        return getattr(self._coroutine, "cr_code", None) or getattr(self._coroutine, "gi_code", None)

    @property
    def cr_frame(self) -> FrameType | None:
        """Where it stands; None when it has ended."""
        return getattr(self._coroutine, "cr_frame", None) or getattr(self._coroutine, "gi_frame", None)

    @property
    def cr_running(self) -> bool:
        """Whether it runs at this moment."""
        return bool(
            getattr(self._coroutine, "cr_running", False) or getattr(self._coroutine, "gi_running", False)
        )

    @property
    def cr_await(self) -> object:
        """What it waits for."""
        return getattr(self._coroutine, "cr_await", None) or getattr(self._coroutine, "gi_yieldfrom", None)


def _steps(coroutine: AnyCoroutine, mark: Mark) -> Generator[Any, Any, Any]:  # noqa: PLR0912 - a call per step costs
    send, throw = coroutine.send, coroutine.throw
    error: BaseException | None = None
    raised: BaseException | None
    try:
        yield None  # primed; asyncio never sees this one
    except GeneratorExit:
        coroutine.close()
        raise
    except BaseException as thrown:  # noqa: BLE001 - handed to the coroutine
        error = thrown
    value: Any = None
    port = current_port.get()
    while True:
        if port is not None:
            mark.begin(port.no, port.epoch, port.began_us)
        try:
            if error is None:
                waits_for = send(value)
            else:
                raised, error = error, None
                waits_for = throw(raised)
        except StopIteration as end:
            return end.value
        except SystemExit as exit_:
            # asyncio would let it end the whole process, and with it what others run here.
            raise Exited(exit_status(exit_)) from exit_
        finally:
            raised = None  # its traceback holds this frame
            if port is not None:
                mark.clear()
        try:
            if isinstance(waits_for, Deferred):
                yield from _future_of(waits_for)
                value = None
            else:
                value = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as thrown:  # noqa: BLE001 - the same
            value, error = None, thrown


def _future_of(deferred: Deferred[Any]) -> Generator[Any, None, None]:
    """Wait until the Deferred has its result, which stays in it: the coroutine's own `await` reads it there."""
    future = asyncio.get_running_loop().create_future()

    def passing(result: Any) -> Any:
        if not future.done():
            future.set_result(None)
        return result

    deferred.addBoth(passing)
    try:
        yield from future
    except asyncio.CancelledError:
        # Nobody waits for it any more. Whatever it ends with now, its own CancelledError first of all, is no one's.
        deferred.addErrback(_ignored)
        if isinstance(deferred, _DEFERRED_LIST):
            deferred.consumeErrors = True  # of those in the list
        deferred.cancel()
        raise


def _ignored(failure: object) -> None:
    """The error of something that was given up."""
