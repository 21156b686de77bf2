"""Tasks for io workers under test."""

# ruff: noqa: T201, TID253, TID251, ASYNC230, ASYNC240, ASYNC251, PTH110, PTH123 - task code is user code: it prints, and it may block

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from jobsvc import Cancelled, Context, task


def later(value: Any, delay_s: float = 0.01) -> Deferred[Any]:
    """A Deferred that fires with the value."""
    return deferLater(reactor, delay_s, lambda: value)


async def both(value: Any) -> Any:
    """Awaits a Deferred and an asyncio future in turn."""
    found = await later(value)
    await asyncio.sleep(0.001)
    return found


@task
async def hello(name: str) -> str:
    """Awaits nothing."""
    return f"hello {name}"


@task
async def gather() -> list[Any]:
    """Asyncio's gather over Deferreds, coroutines and futures."""
    return list(await asyncio.gather(later(1), both(2), asyncio.sleep(0.001, 3)))


@task
async def gather_results() -> list[Any]:
    """Twisted's, awaited."""
    first = await defer.gatherResults([later(1), later(2)])
    second = await defer.DeferredList([later(3), defer.fail(ValueError("x"))], consumeErrors=True)
    return [first, second[0], second[1][1].value.args]


@task
async def group() -> list[int]:
    """A TaskGroup over coroutines that await Deferreds."""
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(both(n)) for n in range(3)]
    return [each.result() for each in made]


@task
async def too_late() -> str:
    """wait_for gives up a Deferred."""
    try:
        await asyncio.wait_for(later(1, 60.0), 0.01)
    except TimeoutError:
        return "gave up"
    return "never"


@task
async def failing_deferred() -> None:
    """What a Deferred fails with is raised where it is awaited."""
    await asyncio.gather(both(1), defer.fail(KeyError("gone")))


@task
async def abandoned() -> str:
    """A timeout over several Deferreds."""
    try:
        async with asyncio.timeout(0.01):
            await defer.gatherResults([later(1, 60.0), later(2, 60.0)])
    except TimeoutError:
        return "gave up"
    return "never"


@task
async def hang(what: str) -> None:
    """Waits until it is cancelled."""
    print("hanging")
    if what == "deferred":
        await Deferred()
    elif what == "future":
        await asyncio.Event().wait()
    elif what == "child":
        await asyncio.gather(both(1), asyncio.create_task(asyncio.sleep(600)))
    else:
        await defer.gatherResults([Deferred(), Deferred()])


@task
async def stubborn() -> str:
    """Finishes although it was asked to stop."""
    print("hanging")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.001)
    return "finished anyway"


@task(executor="loop")
def gives_deferred(value: int) -> Deferred[int]:
    """A plain function that returns a Deferred."""
    return later(value)


@task(executor="loop")
def plain(value: int) -> int:
    """A plain function on the loop."""
    return value


@task
async def counted(n: int) -> AsyncIterator[int]:
    """Items with awaits between them."""
    for i in range(n):
        yield await later(i, 0.0) if i % 100 == 0 else i


@task
async def endless(path: str) -> AsyncIterator[str]:
    """1 KiB items until it is stopped; leaves a file behind when it could clean up."""
    try:
        while True:
            yield "x" * 1024
    finally:
        await asyncio.sleep(0)
        with open(path, "w") as file:
            file.write("closed")


@task
async def flood(ctx: Context) -> None:
    """Emits more than may wait."""
    for _ in range(20):
        ctx.emit("x" * 1_000_000)


@task
async def loud(lines: int) -> None:
    """Prints more than may wait."""
    for n in range(lines):
        print(f"{n:09}" * 1000)


@task
async def prints(name: str) -> None:
    """From the coroutine, a child task, and a thread that it uses."""

    async def child() -> None:
        print(f"{name} child")
        await later(None)
        print(f"{name} child again")

    print(f"{name} start")
    await asyncio.gather(child(), asyncio.to_thread(print, f"{name} thread"), later(None))
    Logger(namespace="author").warn("{name} logged", name=name)
    print(f"{name} end")


@task
async def exits() -> None:
    """A child task asks the process to exit."""

    async def child() -> None:
        await later(None)
        sys.exit(4)

    await asyncio.gather(child())


@task
async def hog(path: str) -> None:
    """Holds up the loop until the file is there."""
    print("holding")
    await asyncio.sleep(0.001)
    while not os.path.exists(path):
        time.sleep(0.005)


@task
def thread_name() -> list[str]:
    """Where it runs."""
    print("in a thread")
    return [threading.current_thread().name]


@task
def thread_count(n: int) -> Generator[int, None, int]:
    """Items from a thread."""
    yield from range(n)
    return n


class _Unlooked(type):
    """Cannot even be asked for its name."""

    def __getattribute__(cls, name: str) -> object:
        if name == "__qualname__":
            raise asyncio.CancelledError
        return super().__getattribute__(name)


class Unlookable(Exception, metaclass=_Unlooked):
    """See its class."""


THROWN: dict[str, type[BaseException]] = {
    "CancelledError": asyncio.CancelledError, "GeneratorExit": GeneratorExit, "Unlookable": Unlookable,
}  # fmt: skip


@task
def thread_throws(what: str) -> None:
    """Raises what no `except Exception` catches, or what cannot be shown."""
    raise THROWN[what]


@task
def thread_exit() -> None:
    """Asks the process to exit."""
    sys.exit(3)


@task
def thread_kills() -> None:
    """Is the end of its process, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def until(ctx: Context, path: str) -> str:
    """Runs until the file is there, or until it is asked to stop."""
    while not os.path.exists(path):
        if ctx.cancelled:
            raise Cancelled("stopped")
        time.sleep(0.005)
    return "there"


@task
def thread_endless(path: str) -> Iterator[str]:
    """1 KiB items until it is stopped; leaves a file behind when it could clean up."""
    try:
        while True:
            yield "x" * 1024
    finally:
        with open(path, "w") as file:
            file.write("closed")


@task
async def sleeps(delay_s: float) -> None:
    """Sleeps."""
    await asyncio.sleep(delay_s)


@task
async def steps(n: int) -> float:
    """Seconds for so many turns of the loop."""
    began = time.perf_counter()
    for _ in range(n):
        await asyncio.sleep(0)
    return time.perf_counter() - began


@task
def called_in_a_thread(ctx: Context) -> list[Any]:
    """What the request that made its job was called."""
    return [ctx.request_id, ctx.traceparent]


@task
async def called_on_the_loop(ctx: Context) -> list[Any]:
    """The same."""
    return [ctx.request_id, ctx.traceparent]
