"""The jobs of a torture run. Each says in a file outside the data directory what it does: that is the ground truth.

A line of that file is one `write` to a descriptor opened with O_APPEND, so lines of many processes do not mix. Its
moment is CLOCK_MONOTONIC, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from jobsvc import Cancelled, Context, Secret, command, task

STEP_S = 0.03
"""Between two effects of a slow job."""
SLEEPER = "sleep 600 &"
FLOOD_BYTES = 512 * 1024
FLOOD = bytes(range(256)) * 256
"""Garbage: NULs, escape codes, what is no UTF-8; 64 KiB of it."""
HOG_STEP_BYTES = 8 * 1024 * 1024
HOG_BYTES = 256 * 1024 * 1024
HOG_WAITS_S = 20.0
"""What is over its limit is looked for twice a second."""

_file = os.open(os.environ["TORTURE_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_folder = Path(os.environ["TORTURE_EFFECTS"]).parent
_nobody = threading.Event()  # never set: a pause that needs no clock of its own


def say(what: str, mark: str, ctx: Context | None, outcome: str | None = None) -> None:
    """One line: start, effect or end of an attempt."""
    line = {
        "what": what,
        "mark": mark,
        "job": None if ctx is None else ctx.job_id,
        "epoch": None if ctx is None else ctx.epoch,
        "pid": os.getpid(),
        "life": os.environ["TORTURE_LIFE"],
        "at": time.monotonic_ns(),
        "wall": time.time_ns() // 1000,
        "outcome": outcome,
    }
    os.write(_file, json.dumps(line).encode() + b"\n")


def answer(ctx: Context, mark: str, n: int) -> dict[str, Any]:
    """What a job gives: told by its arguments, and of which attempt it came."""
    return {"mark": mark, "value": 3 * n + 1, "epoch": ctx.epoch}


def _goes_on(until: float, gate: str) -> bool:
    """Whether the time is not up, or the gate (a file beside the effects) is not open yet."""
    return not (_folder / gate).exists() if gate else time.monotonic() < until


def _work(
    ctx: Context, mark: str, n: int, seconds: float, gate: str, *, deaf: bool = False
) -> dict[str, Any]:
    say("start", mark, ctx)
    until = time.monotonic() + seconds
    while True:
        say("effect", mark, ctx)
        if ctx.cancelled and not deaf:
            say("end", mark, ctx, "stopped")
            raise Cancelled
        if not _goes_on(until, gate):
            break
        _nobody.wait(STEP_S)
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


@task(executor="process")
def on_process(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """Returns after a while, or when its gate is open; stops when asked."""
    return _work(ctx, mark, n, seconds, gate)


@task
def on_thread(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """The same on a thread."""
    return _work(ctx, mark, n, seconds, gate)


@task
async def on_loop(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """The same as a coroutine, with items on its stream."""
    say("start", mark, ctx)
    until = time.monotonic() + seconds
    try:
        while True:
            say("effect", mark, ctx)
            ctx.emit(n)
            if not _goes_on(until, gate):
                break
            await asyncio.sleep(STEP_S)
    except asyncio.CancelledError:
        say("end", mark, ctx, "stopped")
        raise
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


@task(executor="process")
def deaf(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """Does not hear that it should stop."""
    return _work(ctx, mark, n, seconds, gate, deaf=True)


@task
def deaf_thread(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """The same on a thread, which cannot be killed."""
    return _work(ctx, mark, n, seconds, gate, deaf=True)


@task(executor="process", on_lost="fail")
def once(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """Must not be started twice."""
    return _work(ctx, mark, n, seconds, gate)


@task(executor="process")
def flaky(ctx: Context, mark: str, n: int, failures: int) -> dict[str, Any]:
    """Fails the first tries that count."""
    say("start", mark, ctx)
    if ctx.attempt <= failures:
        say("end", mark, ctx, "raised")
        raise ValueError(f"try {ctx.attempt} fails")
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


@task(executor="process")
def leaver(ctx: Context, mark: str, n: int, seconds: float = 0, gate: str = "") -> dict[str, Any]:
    """Leaves a process behind that has left session and parent: nothing but its environment tells whose it is."""
    subprocess.run(["setsid", "sh", "-c", SLEEPER], check=True, stdout=subprocess.DEVNULL)
    return _work(ctx, mark, n, seconds, gate)


@task(executor="process")
def crash(ctx: Context, mark: str, n: int, how: str) -> dict[str, Any]:
    """Ends its process: by a null read, by a status, or by 0 as if all were well."""
    say("start", mark, ctx)
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(3 if how == "exit" else 0)


@task(executor="process")
def flood(ctx: Context, mark: str, n: int) -> dict[str, Any]:
    """Writes garbage on its output, past Python and through it."""
    say("start", mark, ctx)
    for _ in range(FLOOD_BYTES // len(FLOOD)):
        os.write(1, FLOOD)
        print(FLOOD.decode("latin-1"))  # noqa: T201
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


@task(executor="process", limits={"max_rss": "96M"})
def hog(ctx: Context, mark: str, n: int) -> dict[str, Any]:
    """Takes more memory than it may, and holds it."""
    say("start", mark, ctx)
    held: list[bytes] = []
    while len(held) * HOG_STEP_BYTES < HOG_BYTES:
        held.append(b"\xa5" * HOG_STEP_BYTES)
        _nobody.wait(STEP_S)
    _nobody.wait(HOG_WAITS_S)
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


@task(executor="process")
def secretive(ctx: Context, mark: str, n: int, word: Secret[str]) -> dict[str, Any]:
    """Prints its secret: it must be found nowhere."""
    say("start", mark, ctx)
    print("the word is", word.reveal())  # noqa: T201
    say("end", mark, ctx, "returned")
    return answer(ctx, mark, n)


program = command(
    "program",
    [sys.executable, "-S", str(Path(__file__).with_name("torture_program.py")), "{mark}", "{seconds}"],
)
