"""Tasks that work on real files, one for each way to run: thread, process, loop, command, and streams of each.

Start a daemon with them from the folder above: `twistd -n --pidfile= jobsvc --tasks examples.tasks`. They are plain
functions: call them in a unit test as they stand.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import msgspec

from jobsvc import Cancelled, Context, command, task

COMMON_WORDS = 5
"""So many of the most frequent words are told."""
REPORT_LINES = 10_000
"""Progress is reported once for so many lines: often enough to watch, too seldom to cost anything."""


class Words(msgspec.Struct):
    """What `count_words` gives. A dataclass or a dict would do as well."""

    files: int
    lines: int
    words: int
    common: dict[str, int]


@task
def list_sources(root: str) -> list[str]:
    """The Python files below a folder, sorted. A plain `def` runs on a thread, where it may block on files."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in {"site-packages", "__pycache__"}]
        found += [os.path.join(folder, name) for name in names if name.endswith(".py")]  # noqa: PTH118 - many
    return sorted(found)


@task(executor="process")
def digest(path: str) -> str:
    """The SHA-256 of a file. Computation belongs on processes: one for each core."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@task(executor="process", timeout=60)
def count_words(ctx: Context, folder: str) -> Words:
    """Files, lines, words and the most frequent words of the Python files below a folder.

    `ctx` is no argument of the job: the daemon fills it in. Its progress is seen by whoever follows the job's events.
    """
    paths = list_sources(folder)
    lines = words = 0
    seen: Counter[bytes] = Counter()
    for n, path in enumerate(paths, 1):
        if ctx.cancelled:  # somebody cancelled the job, or its timeout is over
            raise Cancelled
        text = Path(path).read_bytes()
        found = text.split()
        lines += text.count(b"\n")
        words += len(found)
        seen.update(found)
        ctx.progress(n, len(paths), Path(path).name)
    common = {word.decode(errors="replace"): times for word, times in seen.most_common(COMMON_WORDS)}
    return Words(len(paths), lines, words, common)


@task(executor="process")
def add_lines(ctx: Context, path: str) -> Generator[int, None, int]:
    """The sum of the numbers of each line; every `yield` is an item of the job's `out` stream. Result: the total."""
    total = 0
    size = Path(path).stat().st_size
    done = 0
    with Path(path).open("rb") as file:
        for n, line in enumerate(file, 1):
            value = sum(map(int, line.split()))
            total += value
            done += len(line)
            if n % REPORT_LINES == 0:
                ctx.progress(done, size)
            yield value
    return total  # the job's result


@task(timeout=30, retries=2, backoff=(0.2, 2))
async def fetch(url: str) -> dict[str, Any]:
    """Fetch a URL. An `async def` runs on the loop, thousands at once, and may await Deferreds, as those of treq."""
    import treq  # here, not above: the processes import this module too and have no use for it

    reply = await treq.get(url, timeout=10)
    body = await reply.content()
    return {"url": url, "status": reply.code, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@task(timeout=60)
async def fetch_all(urls: list[str]) -> list[dict[str, Any]]:
    """The same for many, all at once, in one job: Deferreds inside coroutines of asyncio."""
    return await asyncio.gather(*(fetch(url) for url in urls))


@task
async def tokens(text: str, pause_s: float = 0.05) -> AsyncIterator[str]:
    """The words of a text one by one, as a language model gives them: each is sent the moment it is there."""
    for n, word in enumerate(text.split()):
        if n:
            await asyncio.sleep(pause_s)  # on the loop nothing may block: no time.sleep
        yield word


@task
def slow_square(ctx: Context, n: int, pause_s: float = 1.0) -> int:
    """A thread that waits: what a call into a slow library looks like. It prints, too; that goes to the job's log."""
    print(f"thinking about {n}")
    ctx.log("waiting", pause_s=pause_s)
    waited_s = 0.0
    while waited_s < pause_s and not ctx.cancelled:  # a thread cannot be killed: it has to look
        step_s = min(0.05, pause_s - waited_s)
        time.sleep(step_s)
        waited_s += step_s
    if ctx.cancelled:
        raise Cancelled
    return n * n


wc = command("wc", ["wc", "-l", "-w", "-c", "{path}"])
"""A program: `{path}` is its argument, what it prints are the items of `out`, `{"code": 0}` is the result."""

sort_numbers = command("sort_numbers", ["sort", "--numeric-sort", "--key=1,1", "{path}"], env={"LC_ALL": "C"})
"""Another: its lines stream while it runs."""
