"""Tasks whose declarations the engine's tests use; nothing here is ever called."""

from __future__ import annotations

from collections.abc import Iterator

from jobsvc import command, task
from jobsvc.model.task import TaskSpec


@task(executor="process")
def add(a: int, b: int = 0) -> int:
    return a + b


@task(executor="process")
def quick(n: int = 0) -> int:
    return n


@task(executor="process", limits={"max_rss": "64M"})
def small(n: int = 0) -> int:
    return n


@task(executor="process", on_lost="fail")
def once(n: int = 0) -> int:
    return n


@task(executor="process", retries=2)
def flaky(n: int = 0) -> int:
    return n


@task(executor="process", timeout={"run": 5.0, "idle": 2.0}, retries=1)
def watched() -> Iterator[int]:
    yield 1


@task(executor="process", timeout={"total": 10.0}, retries=3)
def bounded(n: int = 0) -> int:
    return n


@task
def thumbnail(path: str = "", width: int = 200) -> str:
    return f"{path}@{width}"


@task(timeout=5, retries=1)
def stubborn(n: int = 0) -> int:
    return n


@task(concurrency=1)
def single(n: int = 0) -> int:
    return n


@task(concurrency=1, timeout=5)
def lone(n: int = 0) -> int:
    return n


@task(executor="process", concurrency=2)
def pair(n: int = 0) -> int:
    return n


@task
async def fetch(url: str = "") -> int:
    return len(url)


@task(timeout=5)
async def spin(n: int = 0) -> int:
    return n


cat = command("cat", ["cat", "{path}"])

ALL: dict[str, TaskSpec] = {
    each.name: each.spec()
    for each in (
        add, quick, small, once, flaky, watched, bounded, thumbnail, stubborn, single, lone, pair, fetch, spin, cat,
    )
}  # fmt: skip
