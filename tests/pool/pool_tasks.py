"""Tasks for the tests of the pool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from jobsvc import command, task


@task(executor="process")
def add(a: int, b: int) -> int:
    return a + b


@task(executor="process")
def print_natively(word: str) -> None:
    subprocess.run(["echo", word], check=True)


@task(executor="process")
def leave(status: int) -> None:
    os._exit(status)


@task(executor="process")
def sleep(seconds: int) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


@task(executor="process")
def read_line(fifo: str) -> str:
    """Waits until somebody has written one."""
    return Path(fifo).read_text()


@task
def lower(word: str) -> str:
    return word.lower()


echo = command("echo", ["echo", "{word}"])
