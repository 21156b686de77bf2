"""Tasks for cpu workers under test."""

# ruff: noqa: T201, TRY301, TID251, PTH110, PTH123 - task code is user code: it prints, and it may block

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

from jobsvc import Cancelled, Context, task

print("imported")


@task(executor="process")
def noop() -> None:
    """Nothing."""


@task(executor="process")
def add(a: int, b: int = 1) -> int:
    """Sum of two."""
    return a + b


@task(executor="process")
def echo(value: Any) -> Any:
    """What it is given."""
    return value


@task(executor="process")
def blob(size: int) -> str:
    """Text of that size."""
    return "x" * size


@task(executor="process")
def fail(word: str) -> None:
    """Raises, from another error."""
    try:
        raise KeyError(word)
    except KeyError as error:
        raise ValueError(f"no {word}") from error


@task(executor="process")
def strange() -> object:
    """A result without a JSON form."""
    return object()


@task(executor="process")
def deep(n: int) -> int:
    """Never comes to an end."""
    return deep(n + 1)


@task(executor="process")
def throws(helper: bool) -> None:
    """Raises what no `except Exception` catches; with a thread left behind for which Python would wait at its exit."""
    if helper:
        threading.Thread(target=threading.Event().wait).start()
    raise GeneratorExit("over")


@task(executor="process")
def leave(code: int) -> None:
    """Asks the process to exit."""
    print("last words", end="")
    sys.exit(code)


@task(executor="process")
def crash() -> None:
    """Reads address 0."""
    ctypes.string_at(0)


@task(executor="process")
def count(n: int) -> Generator[int, None, int]:
    """Gives 0 … n-1, returns n."""
    yield from range(n)
    return n


@task(executor="process")
def fat(size: int) -> Iterator[str]:
    """One item of that size."""
    yield "x" * size


@task(executor="process")
def endless(ctx: Context, path: str) -> Iterator[str]:
    """Gives 1 KiB items until it is stopped; leaves a file behind when it could clean up."""
    try:
        while True:
            yield "x" * 1024
    finally:
        with open(path, "w") as file:
            file.write("closed")


@task(executor="process")
def patient(ctx: Context, answer: bool) -> str:
    """Runs until it is asked to stop; then stops, or gives an answer all the same."""
    while not ctx.cancelled:
        threading.Event().wait(0.005)
    if answer:
        return "finished anyway"
    raise Cancelled("as you wish")


@task(executor="process")
def wait_for(path: str) -> None:
    """Runs until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)


@task(executor="process")
def chatter() -> None:
    """Prints in every way."""
    print("plain")
    print("wärning", file=sys.stderr)
    sys.stdout.write("in ")
    sys.stdout.write("pieces\nand a rest")
    sys.stdout.buffer.write(b"\nbytes\n")
    thread = threading.Thread(target=lambda: print("from a thread"))
    thread.start()
    thread.join()
    print("a surrogate \udc80")
    for percent in range(0, 101, 25):
        print(f"\r{percent} %", end="")


@task(executor="process")
def long_line(size: int) -> None:
    """One long line."""
    print("ü" * size)


@task(executor="process")
def native() -> None:
    """What does not go through sys.stdout."""
    os.write(1, b"by descriptor\n")
    subprocess.run([sys.executable, "-c", "print('by a program')"], check=True)


@task(executor="process")
def report(ctx: Context) -> list[Any]:
    """Progress, log, streams of its own, and what it knows of its job."""
    for n in range(100):
        ctx.progress(n, 99, "at it")
    ctx.log("half way", n=50, odd=object())
    ctx.emit({"a": 1}, stream="extra")
    return [ctx.job_id, ctx.attempt, ctx.epoch, ctx.remaining_s is not None and 0 < ctx.remaining_s <= 60]


@task(executor="process")
def called(ctx: Context) -> list[Any]:
    """What the request that made its job was called."""
    return [ctx.request_id, ctx.traceparent]


@task(executor="process")
def forked() -> int:
    """A forked child that prints is no worker."""
    pid = os.fork()
    if pid == 0:
        print("child here")
        sys.stdout.flush()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@task(executor="process")
def modules() -> list[str]:
    """What is loaded."""
    return sorted(sys.modules)
