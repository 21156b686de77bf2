"""The authors' harness: a task runs in a unit test as it would in a worker."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from jobsvc import Cancelled, Context, command, task
from jobsvc.authoring.context import current_context
from jobsvc.authoring.results import NotSerialisable
from jobsvc.model.types import ArgsError
from jobsvc.testing import JOB_ID, LogRecord, run


@task
def report(ctx: Context, day: dt.date, words: tuple[str, ...] = (), *, loud: bool = False) -> dict[str, Any]:
    ctx.progress(1, 2, "half")
    ctx.log("done", level="debug", words=words)
    ctx.emit(b"x", "frames")
    return {"day": day, "loud": loud, "id": ctx.job_id, "own": current_context.get() is ctx}


def test_arguments_and_result_go_through_json() -> None:
    done = run(report, dt.date(2026, 11, 23), ["a"], loud=True)
    assert done.result == {"day": "2026-11-23", "loud": True, "id": JOB_ID, "own": True}
    assert done.logs == [LogRecord("debug", "done", {"words": ["a"]})]
    assert done.progress == [{"n": 1, "of": 2, "note": "half"}]
    assert done.streams == {"frames": ["eA=="]}
    assert done.items == []
    assert not done.cancelled
    assert current_context.get() is None


@pytest.mark.parametrize(
    ("args", "kwargs", "pointer"),
    [
        ((), {}, "/day"),
        (("soon",), {}, "/0"),
        ((), {"day": "2026-11-23", "lord": True}, "/lord"),
        (("2026-11-23", [], True), {}, "/2"),
        (("2026-11-23", [], True), {"loud": True}, ""),
        (("2026-11-23",), {"day": "2026-11-23"}, "/day"),
    ],
)
def test_wrong_arguments_are_refused_as_by_the_daemon(
    args: tuple[Any, ...], kwargs: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(ArgsError) as refused:
        run(report, *args, **kwargs)
    assert refused.value.pointer == pointer


def test_generator_streams_and_returns() -> None:
    @task
    def count(n: int) -> Generator[int, None, str]:
        yield from range(n)
        return "end"

    done = run(count, 3)
    assert (done.items, done.result) == ([0, 1, 2], "end")


def test_coroutine_and_async_generator_run_on_a_loop() -> None:
    @task
    async def total(ctx: Context, n: int) -> int:
        parts = await asyncio.gather(*(asyncio.sleep(0, result=i) for i in range(n)))
        ctx.emit(parts)
        return sum(parts)

    @task
    async def letters(word: str) -> AsyncIterator[str]:
        for letter in word:
            await asyncio.sleep(0)
            yield letter

    done = run(total, 4)
    assert (done.result, done.items) == (6, [[0, 1, 2, 3]])
    done = run(letters, "ab")
    assert (done.result, done.items) == (None, ["a", "b"])


def test_deferred_that_has_fired_can_be_awaited() -> None:
    @task
    async def one() -> int:
        return await succeed(1)

    @task(executor="loop")
    def other() -> Deferred[int]:
        return succeed(2)

    @task(executor="loop")
    def plain() -> int:
        return 3

    assert [run(each).result for each in (one, other, plain)] == [1, 2, 3]


def test_deferred_that_has_not_fired_needs_a_daemon() -> None:
    waiting: Deferred[int] = Deferred()

    @task
    async def one() -> int:
        return await waiting

    with pytest.raises(RuntimeError, match=r"<task one .*> awaits a Deferred .* it needs a daemon"):
        run(one)


def test_call_from_a_running_loop_says_what_to_do() -> None:
    @task
    async def one() -> None: ...

    async def test() -> None:
        run(one)

    with asyncio.Runner() as runner, pytest.raises(RuntimeError, match="call it from a plain function"):
        runner.run(test())


def test_cancel_is_seen_and_stops_a_generator_at_its_yield() -> None:
    closed = []

    @task
    def endless(ctx: Context) -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(ctx.cancelled)

    @task
    async def endless_too() -> AsyncIterator[int]:
        try:
            for n in range(1_000_000):
                yield n
        finally:
            closed.append(True)

    for each in (endless, endless_too):
        done = run(each, cancel_after_items=3)
        assert (done.items, done.cancelled, done.result) == ([0, 1, 2], True, None)
    assert closed == [True, True]


def test_cancelled_task_may_stop_itself_or_finish() -> None:
    @task
    def obeys(ctx: Context, obey: bool) -> str:
        for n in range(5):
            ctx.emit(n)
            if ctx.cancelled and obey:
                raise Cancelled
        return "finished"

    stopped = run(obeys, True, cancel_after_items=2)
    assert (stopped.items, stopped.cancelled, stopped.result) == ([0, 1], True, None)
    finished = run(obeys, False, cancel_after_items=0)
    assert (finished.cancelled, finished.result) == (False, "finished")


def test_cancelled_that_nobody_asked_for_is_an_error() -> None:
    @task
    def stops() -> None:
        raise Cancelled("on its own")

    with pytest.raises(Cancelled, match="on its own"):
        run(stops)


def test_exception_comes_through_unchanged() -> None:
    error = LookupError("mine")

    @task
    def fails() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        run(fails)
    assert raised.value is error
    assert current_context.get() is None


def test_result_without_json_form() -> None:
    @task
    def odd() -> Any:
        return object()

    with pytest.raises(NotSerialisable, match="object"):
        run(odd)


def test_deadline() -> None:
    @task
    def left(ctx: Context) -> Any:
        return ctx.remaining_s

    assert run(left).result is None
    assert run(left, deadline_s=100).result == pytest.approx(100, abs=5)


SCRIPT = (
    "import os, sys; print(sys.argv[1:]); print('warn', file=sys.stderr); sys.exit(int(os.environ['CODE']))"
)


def test_command_runs_its_program() -> None:
    lists = command(
        "lists", [sys.executable, "-c", SCRIPT, "{a}", "--b={b}"], env={"CODE": "3"}, ok_codes=(0, 3)
    )
    done = run(lists, "x y", b=True)
    assert done.result == {"code": 3}
    assert done.items == ["['x y', '--b=true']"]
    assert done.logs == [LogRecord("warning", "warn", {}, "stderr")]


def test_command_that_fails() -> None:
    fails = command("fails", [sys.executable, "-c", SCRIPT], env={"CODE": "4"})
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run(fails)
    assert raised.value.returncode == 4
    assert raised.value.stderr == b"warn\n"


def test_command_with_bytes() -> None:
    raw = command(
        "raw", [sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xff\\n')"], text=False
    )
    assert run(raw).items == ["/w=="]
