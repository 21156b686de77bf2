"""Tasks with limits, and tasks without, that use what they can get."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobsvc import command, task

MIB = 1024 * 1024
HOLD = 'import sys; held = bytearray(b"x") * int(sys.argv[1]); sys.stdin.read()'
"""A program that keeps so many bytes in memory until its stdin ends."""


def rlimits() -> dict[str, list[int]]:
    return {
        name: list(resource.getrlimit(getattr(resource, f"RLIMIT_{name}")))
        for name in ("CPU", "NOFILE", "FSIZE", "DATA")
    }


@task(executor="process")
def free() -> dict[str, list[int]]:
    return rlimits()


@task(
    executor="process",
    limits={"max_rss": "256M", "cpu_s": 60, "open_files": 64, "file_bytes": 10_000},
)
def limited() -> dict[str, list[int]]:
    return rlimits()


@task(executor="process", limits={"max_rss": "128M"})
def allocate(size: int) -> int:
    held = [bytearray(size)]
    return len(held[0])


@task(executor="process", limits={"max_rss": "128M"})
def pile_up() -> None:
    """Small things without end: nothing is left when the last one is refused."""
    held: list[Any] = []
    while True:
        held.append([str(len(held))])


@task(executor="process", limits={"max_rss": "64M"})
def have_threads(count: int) -> int:
    """Many threads hold little memory, though each reserves a stack."""
    from threading import Event, Thread

    done = Event()
    threads = [Thread(target=done.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    done.set()
    for thread in threads:
        thread.join()
    return len(threads)


@task(executor="process", limits={"max_rss": "128M"})
def have_hogs(count: int, size: int, *, far: bool) -> Iterator[list[int]]:
    """Children, each within the limit; `far`: orphans in sessions of their own."""
    words = [sys.executable, "-c", HOLD, str(size)]
    # What a shell puts into the background gets /dev/null for its stdin, whatever its own is.
    start = "exec 3<&0; setsid" if far else "echo $$; exec"
    end = "<&3 & echo $!" if far else ""
    hogs = [
        subprocess.Popen(
            ["sh", "-c", f'{start} "$@" {end}', "sh", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]  # fmt: skip
    yield [int(hog.stdout.readline()) for hog in hogs if hog.stdout is not None]
    signal.pause()


@task(executor="process", limits={"max_rss": "128M"})
def fork_family(count: int, size: int, gate: str) -> int:
    """Forked children share what their parent holds: all of them together need it once."""
    held = bytearray(b"x") * size
    read, write = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    Path(gate).read_text()
    os.close(write)
    for _ in range(count):
        os.wait()
    return len(held)


@task(executor="process", limits={"open_files": 64})
def open_many(count: int) -> int:
    with ExitStack() as stack:
        for n in range(count):
            try:
                stack.enter_context(open("/dev/null", "rb"))  # noqa: PTH123
            except OSError:
                print("open:", n)  # noqa: T201
                raise
        return count


@task(executor="process", limits={"file_bytes": 10_000})
def write_file(path: str, size: int) -> int:
    with Path(path).open("wb", buffering=0) as file:
        while file.tell() < size:
            file.write(b"x" * 1000)
    return size


@task(executor="process", limits={"cpu_s": 1})
def burn(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
    return seconds


@task(executor="process", limits={"cpu_s": 1})
def burn_deaf() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        sum(range(1000))


@task(executor="process")
def burn_freely() -> None:
    while True:
        sum(range(1000))


@task(executor="process")
def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(executor="process")
def who() -> list[int]:
    return [os.getpid(), os.getppid()]


burn_program = command("burn_program", ["sh", "-c", "while :; do :; done"], limits={"cpu_s": 1})
write_program = command("write_program", ["head", "-c", "{size}", "/dev/zero"], limits={"file_bytes": 10_000})
fill_program = command(
    "fill_program",
    [sys.executable, "-c", "open('{path}', 'wb').write(b'x' * 20000)"],
    limits={"file_bytes": 10_000},
)
c_program = command(
    "c_program", ["dd", "if=/dev/zero", "of={path}", "bs=20000", "count=2"], limits={"file_bytes": 10_000}
)
eat_program = command(
    "eat_program", [sys.executable, "-c", "bytearray(1 << 30)"], limits={"max_rss": "64M", "open_files": 64}
)
hog_program = command(
    "hog_program",
    [
        "sh",
        "-c",
        f"for n in 1 2 3; do {sys.executable} -c '{HOLD}' {60 * MIB} < {{fifo}} & done; wait",
    ],
    limits={"max_rss": "128M"},
)
show_limits = command(
    "show_limits",
    ["sh", "-c", "ulimit -n; ulimit -t; ulimit -f; ulimit -d"],
    limits={"open_files": 64, "cpu_s": 7, "file_bytes": "1M", "max_rss": "64M"},
)
free_program = command("free_program", ["sh", "-c", "ulimit -n; ulimit -t; ulimit -f; ulimit -d"])
kill_program = command("kill_program", ["sh", "-c", "kill -9 $$"])
