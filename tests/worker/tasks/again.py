"""Tasks that ask to be run again, in every form a task has; for workers of both kinds."""

# ruff: noqa: TRY301, DTZ005 - task code is user code

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from jobsvc import Context, Retry, Snooze, task


class Busy(OSError):
    """Worth another try, as its base is."""


class Broken(OSError):
    """Not worth one, though its base is."""


def act(what: str) -> Any:
    """Do as told."""
    if what == "retry":
        raise Retry(2.5, "busy")
    if what == "led":
        try:
            raise Busy("no line")
        except Busy as error:
            raise Retry(timedelta(minutes=1)) from error
    if what == "policy":
        raise Retry
    if what == "snooze":
        raise Snooze(60)
    if what == "moment":
        raise Snooze(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    if what == "naive":
        raise Snooze(datetime.now())
    if what == "object":
        return object()
    raise {"busy": Busy, "broken": Broken, "value": ValueError}[what](what)


RULES: dict[str, Any] = {"retry_on": OSError, "give_up_on": (Broken,)}


@task(executor="process", **RULES)
def process_plain(what: str) -> Any:
    """A function in a process."""
    return act(what)


@task(executor="process", **RULES)
def process_generator(what: str) -> Iterator[Any]:
    """A generator in a process."""
    yield 1
    yield act(what)


@task(**RULES)
def thread_plain(what: str) -> Any:
    """A function on a thread."""
    return act(what)


@task(**RULES)
def thread_generator(what: str) -> Iterator[Any]:
    """A generator on a thread."""
    yield 1
    yield act(what)


@task(executor="loop", **RULES)
def loop_plain(what: str) -> Any:
    """A function on the loop."""
    return act(what)


@task(**RULES)
async def loop_coroutine(what: str) -> Any:
    """A coroutine."""
    return act(what)


@task(**RULES)
async def loop_generator(what: str) -> AsyncIterator[Any]:
    """An async generator."""
    yield 1
    yield act(what)


@task(executor="thread", give_up_on=Exception)
def leave_thread() -> None:
    """SystemExit is no exception in the sense of the rules."""
    raise SystemExit(3)


@task(executor="process")
def own_retry(ctx: Context) -> None:
    """A class of the author's own that does not call its base."""

    class Later(Retry):
        def __init__(self, code: int) -> None:
            self.code = code

    raise Later(ctx.attempt)
