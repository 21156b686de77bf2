"""A task module as a stranger would write it: every executor, every way to speak, to fail and to wait.

It is text, because the daemon under test imports it in its own environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.daemon import Daemon

TASKS = """
import asyncio, ctypes, os, subprocess, sys, threading, time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from jobsvc import Cancelled, Context, command, task

@dataclass
class Point:
    x: float
    y: float = 0.0

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

# -- the stranger's module

def later(value):
    return deferLater(reactor, 0.01, lambda: value)

@task
async def gathered(n: int) -> list[int]:
    async def by_asyncio(value):
        await asyncio.sleep(0.01)
        return value
    async def by_twisted(value):
        return await later(value)
    def named():
        from twisted.internet import reactor
        return gatherResults([later(-1), succeed(-2)])
    values = await asyncio.gather(*(by_asyncio(i) if i % 2 else by_twisted(i) for i in range(n)))
    async with asyncio.TaskGroup() as group:
        more = [group.create_task(by_twisted(n)), group.create_task(by_asyncio(n + 1))]
    last = await asyncio.wait_for(by_twisted(n + 2), 30)
    return values + [t.result() for t in more] + [last] + await named()

@task
def plain(a: int, b: int = 2) -> int:
    return a * b

@task(executor="loop")
def deferred(value: int) -> Any:
    return later(value)

@task
def lines(upto: int) -> Iterator[int]:
    for n in range(upto):
        yield n
    return "sum of lines"

@task
async def ticks(upto: int) -> AsyncIterator[int]:
    for n in range(upto):
        await asyncio.sleep(0)
        yield n

@task(executor="process")
def cube(point: Point, when: datetime) -> dict:
    return {"volume": point.x ** 3, "year": when.year, "pid": os.getpid()}

@task(executor="process")
def squares(upto: int) -> Iterator[int]:
    for n in range(upto):
        yield n * n

count = command("count", ["sh", "-c", "for i in $(seq $0); do echo line $i; done; echo done >&2", "{upto}"])
shell = command("shell", ["sh", "-c", "{script}"], ok_codes=[0, 3])

# -- output

@task
async def print_loop(word: str) -> None:
    print(word, "coroutine")
    async def child():
        await asyncio.sleep(0.01)
        print(word, "child")
    await asyncio.gather(child(), asyncio.create_task(child()))
    await asyncio.to_thread(print, word, "to_thread")

@task
def print_thread(word: str) -> None:
    print(word, "thread")
    print(word, "error", file=sys.stderr)

@task(executor="process")
def print_process(word: str) -> None:
    print(word, "process")
    subprocess.run(["sh", "-c", f"echo {word} subprocess; echo {word} suberror >&2"], check=True)
    os.write(1, f"{word} descriptor\\n".encode())
    thread = threading.Thread(target=print, args=(word, "its thread"))
    thread.start()
    thread.join()

@task
def speak(ctx: Context) -> None:
    ctx.progress(1, 2, "half")
    ctx.log("said", level="warning", a=1, b=["x"])
    ctx.emit({"k": 1})
    ctx.emit("elsewhere", stream="side")
    ctx.progress(2, 2)

# -- errors

class Unhappy(Exception):
    pass

@task(executor="process")
def fail_process(word: str) -> None:
    raise Unhappy(f"no {word}")

@task
def fail_thread(word: str) -> None:
    try:
        raise KeyError(word)
    except KeyError as error:
        raise Unhappy("again") from error

@task
async def fail_loop(word: str) -> None:
    await asyncio.sleep(0)
    raise Unhappy(word)

@task
def unserialisable() -> Any:
    return object()

@task(executor="process")
def too_large(n: int) -> str:
    return "x" * n

@task(executor="process")
def echo(value: Any) -> Any:
    return value

@task(retries=3, backoff={"base_s": 0.01})
def third_time(ctx: Context) -> int:
    if ctx.attempt < 3:
        raise Unhappy(str(ctx.attempt))
    return ctx.attempt

# -- waiting

@task(concurrency=2)
async def few(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

@task(executor="process")
def held(ctx: Context, gate: str) -> None:
    ctx.emit(os.getpid())
    wait_for(gate)

@task
def held_thread(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    wait_for(gate)

@task
async def held_loop(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

held_command = command("held_command", ["sh", "-c", "echo in; until [ -e $0 ]; do sleep 0.02; done", "{gate}"])

@task
def ask_thread(ctx: Context) -> None:
    ctx.emit("in")
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Cancelled

@task(executor="process")
def ask_process(ctx: Context) -> None:
    ctx.emit("in")
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Cancelled

@task(executor="process")
def order(ctx: Context, n: int) -> int:
    return time.monotonic_ns()
"""


def result(daemon: Daemon, task: str, *args: Any, **fields: Any) -> Any:
    """The result of one job of it."""
    return daemon.succeeded(daemon.submit(task, *args, **fields)["id"])


def failure(daemon: Daemon, job_id: str) -> dict[str, Any]:
    """The error of a job that fails."""
    job = daemon.done(job_id)
    assert job["state"] == "failed", job
    error: dict[str, Any] = job["error"]
    return error
