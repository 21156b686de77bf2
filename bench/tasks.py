"""The tasks that are measured: as little as possible each, so that what is seen is the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from bench.burning import burn_loops
from jobsvc import Context, task

GATE_LOOK_S = 0.001
"""Between two looks whether the reader is there."""
HOLD_LOOK_S = 0.05

_never = Event()


@task(executor="process")
def noop() -> None:
    """Nothing."""


@task(executor="process")
def echo(text: str) -> str:
    """Give back what came."""
    return text


@task(executor="process")
def burn(loops: int) -> int:
    """Compute."""
    return burn_loops(loops)


@task
async def nap(seconds: float) -> None:
    """A coroutine that waits."""
    await asyncio.sleep(seconds)


@task(executor="process")
def count_up(upto: int, gate: str) -> Iterator[int]:
    """Yield small numbers as fast as possible, once the file `gate` is there."""
    path = Path(gate)
    while not path.exists():
        _never.wait(GATE_LOOK_S)
    yield from range(upto)


@task(executor="process")
def mark_begin(ctx: Context, path: str) -> None:
    """Write the moment of the begin to a file, as a line; the first attempt then waits to be killed."""
    with Path(path).open("a") as file:
        file.write(f"{time.monotonic()}\n")
    while ctx.epoch == 1 and not ctx.cancelled:
        _never.wait(HOLD_LOOK_S)


@task(executor="process")
def hold(ctx: Context) -> None:
    """Keep a worker busy until cancelled."""
    while not ctx.cancelled:
        _never.wait(HOLD_LOOK_S)


@task(executor="process")
def tick(ctx: Context, count: int, every_s: float) -> Iterator[str]:
    """Yield the moment, as CLOCK_MONOTONIC has it, again and again."""
    for _ in range(count):
        if ctx.cancelled:
            return
        yield f"at {time.monotonic():.6f}"
        _never.wait(every_s)


@task(executor="process")
def pour(count: int, size: int) -> Iterator[str]:
    """Yield large items as fast as they are taken."""
    item = "x" * size
    for _ in range(count):
        yield item
