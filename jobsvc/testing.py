"""F2: the authors' harness: run a task with its context in a unit test, without a daemon.

Arguments, items and the result go through JSON as they would over HTTP, so what passes here passes there. Free of
Twisted: a coroutine that awaits a Deferred which has not fired yet needs a reactor, so it needs a daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import subprocess
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import msgspec

from jobsvc.authoring.again import Retry, Snooze
from jobsvc.authoring.command import Command
from jobsvc.authoring.context import Cancelled, Context, Source, current_context
from jobsvc.authoring.discover import AnyTask
from jobsvc.authoring.results import encode_result
from jobsvc.authoring.task import Task
from jobsvc.model.types import ArgsError

JOB_ID = "00000000-0000-7000-8000-000000000000"
"""What `ctx.job_id` is in a unit test."""


class LogRecord(NamedTuple):
    """One log event. `source` is `task`, or for a command `stderr`."""

    level: str
    message: str
    fields: dict[str, Any]
    source: Source = "task"


class Recorded(msgspec.Struct):
    """What a task did, as a client would see it.

    Args:
        result: its result.
        streams: the items of each stream, by its name.
        logs: its log events.
        progress: each progress it reported: `{"n", "of", "note"}`.
        cancelled: it was asked to stop, and did: by `Cancelled`, or at a `yield`, as in a worker.
        again: the `Retry` or `Snooze` that it raised: `done.again.after_s`, for a moment `done.again.at`. Where it was
            asked to stop before, the job is `cancelled` instead.
    """

    result: Any = None
    streams: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    logs: list[LogRecord] = msgspec.field(default_factory=list)
    progress: list[dict[str, Any]] = msgspec.field(default_factory=list)
    cancelled: bool = False
    again: Retry | Snooze | None = None

    @property
    def items(self) -> list[Any]:
        """The items of `out`."""
        return self.streams.get("out", [])


def run(
    task: AnyTask,
    /,
    *args: Any,
    cancel_after_items: int | None = None,
    deadline_s: float | None = None,
    **kwargs: Any,
) -> Recorded:
    """Run a task to its end, with its arguments as for a call (without the context), and give what it did.

    Args:
        cancel_after_items: `ctx.cancelled` is true as soon as so many items are on `out` (0: from the start).
        deadline_s: what `ctx.remaining_s` counts down from; nothing is stopped at its end.

    Raises:
        ArgsError: the arguments do not fit the task, as the daemon would say it.
        NotSerialisable: the result or an item has no JSON form.
        subprocess.CalledProcessError: a command ended with a code that is not among its `ok_codes`.
        RuntimeError: a coroutine that needs a reactor, or a call from a running event loop.

    Whatever else the task raises comes through unchanged.
    """
    bound, named = task.bind(_args_json(task, args, kwargs))
    recorded = Recorded()
    port = _Port(recorded, cancel_after_items, None if deadline_s is None else time.monotonic() + deadline_s)
    context = Context(port, job_id=JOB_ID, attempt=1, epoch=1)
    token = current_context.set(context)
    try:
        if isinstance(task, Command):
            value = _run_command(task, named, context, port)
        else:
            value = _run_task(task, bound, named, context)
        recorded.result = msgspec.json.decode(encode_result(value))
    except Cancelled:
        if not port.is_cancelled():
            raise
        recorded.cancelled = True
    except (Retry, Snooze) as again:
        if port.is_cancelled():
            recorded.cancelled = True
        else:
            recorded.again = again
    finally:
        current_context.reset(token)
    return recorded


class _Port:
    """The way out of a context into a `Recorded`."""

    def __init__(self, recorded: Recorded, cancel_after_items: int | None, deadline: float | None) -> None:
        self._recorded = recorded
        self._cancel_after_items = cancel_after_items
        self._deadline = deadline

    def item(self, stream: str, body: bytes) -> None:
        self._recorded.streams.setdefault(stream, []).append(msgspec.json.decode(body))

    def log(self, level: str, message: str, fields_json: bytes, source: Source) -> None:
        self._recorded.logs.append(LogRecord(level, message, msgspec.json.decode(fields_json), source))

    def progress(self, body: bytes) -> None:
        self._recorded.progress.append(msgspec.json.decode(body))

    def is_cancelled(self) -> bool:
        return self._cancel_after_items is not None and len(self._recorded.items) >= self._cancel_after_items

    def deadline(self) -> float | None:
        return self._deadline


def _args_json(task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    if args and not kwargs:
        return encode_result(args)
    names = [field.name for field in task.node.fields if not field.named_only]
    if len(args) > len(names):
        raise ArgsError("", f"too many arguments: {len(args)}; by position the task takes {len(names)}")
    given = dict(zip(names, args, strict=False))
    twice = next((name for name in kwargs if name in given), None)
    if twice is not None:
        raise ArgsError(f"/{twice}", f"argument `{twice}` is given twice")
    return encode_result(given | kwargs)


def _run_task(task: Task[..., Any], args: list[Any], kwargs: dict[str, Any], context: Context) -> Any:
    if task.executor != "loop":
        value = task.invoke(context, args, kwargs)
        return _drained(value, context) if task.kind == "generator" else value

    async def on_loop() -> Any:
        value = task.invoke(context, args, kwargs)
        if task.kind == "async_generator":
            async with contextlib.aclosing(value):
                async for item in value:
                    context.emit(item)
                    _stop_at_yield(context)
            return None
        return await value if inspect.isawaitable(value) else value

    _refuse_running_loop()
    with asyncio.Runner() as runner:
        try:
            return runner.run(on_loop())
        except RuntimeError as error:
            if str(error).startswith("Task got bad yield"):
                raise RuntimeError(
                    f"{task!r} awaits a Deferred that has not fired: it needs a daemon"
                ) from error
            raise


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "jobsvc.testing.run needs a loop of its own: call it from a plain function, not from async def"
    )


def _drained(items: Generator[Any, None, Any], context: Context) -> Any:
    """Emit all that a generator yields; what it returns."""
    with contextlib.closing(items):
        while True:
            try:
                item = next(items)
            except StopIteration as stop:
                return stop.value
            context.emit(item)
            _stop_at_yield(context)


def _stop_at_yield(context: Context) -> None:
    if context.cancelled:
        raise Cancelled("stopped at a yield")


def _run_command(task: Command, values: dict[str, Any], context: Context, port: _Port) -> dict[str, int]:
    spec = task.command
    done = subprocess.run(
        task.render(values),
        cwd=spec.cwd,
        env=os.environ | spec.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=task.declared.policy.timeouts.run,
        check=False,
    )
    for line in done.stdout.splitlines():
        context.emit(line.decode(errors="replace") if spec.text else line)
    for said in done.stderr.decode(errors="replace").splitlines():
        port.log("warning", said, b"{}", "stderr")
    if done.returncode not in spec.ok_codes:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return {"code": done.returncode}
