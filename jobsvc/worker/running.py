"""Runs the code of an attempt on a thread of its own, to its end: bind, call, items, result, or what went wrong.

F2, free of Twisted. Shared by cpu workers and the threads of an io worker.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias

from jobsvc.authoring.again import Retry, Snooze
from jobsvc.authoring.context import Cancelled
from jobsvc.authoring.results import NotSerialisable, encode_result
from jobsvc.authoring.task import Task
from jobsvc.model.clock import time_us
from jobsvc.model.errors import JobError
from jobsvc.model.frames import Again
from jobsvc.model.limits import RESULT_MAX_BYTES
from jobsvc.model.types import ArgsError
from jobsvc.model.typetree import TypeNode, kinds_in
from jobsvc.worker.attempt import Port, enter
from jobsvc.worker.blame import TooLarge, task_error, type_name
from jobsvc.worker.redaction import Veil, recent

OUT = "out"
"""The stream of what a generator yields."""

FunctionTask = Task[..., Any]
"""A task that runs in a worker; commands are the daemon's to start."""

Ending: TypeAlias = tuple[JobError | None, bytes, Again | None]
"""How an attempt ended: the error, or None and the JSON of the result; and what its code says about running again."""


class Code:
    """The code of a task with what is asked of it for every attempt looked up once."""

    __slots__ = ("bind", "fn", "inject", "kind", "secrets", "wants_context", "worth")

    def __init__(self, task: FunctionTask) -> None:
        signature = task.signature()
        self.fn: Callable[..., Any] = task.fn
        self.kind = task.kind
        self.bind = signature.bind
        self.inject = signature.inject
        self.secrets = signature.node if "secret" in kinds_in(signature.node) else None
        self.wants_context = signature.wants_context
        self.worth = task.worth

    def call(self, port: Port) -> Any:
        """Call it with the arguments of the attempt, as that attempt. What comes back depends on its kind.

        Raises:
            Rejected: the arguments do not fit it.
            BaseException: whatever its own code raises.
        """
        body = port.start.body
        if self.secrets is not None:
            body = _opened(self.secrets, port)
        try:
            args, kwargs = self.bind(body)
        except ArgsError as error:
            raise Rejected(str(error)) from None
        if self.wants_context:
            context = port.context()
            enter(port, context)
            self.inject(context, args, kwargs)
        else:
            enter(port, None)
        return self.fn(*args, **kwargs)


def _opened(node: TypeNode, port: Port) -> bytes:
    """The arguments with their secrets in clear; from here on nothing that the attempt says has them in it.

    Raises:
        Rejected: they cannot be decrypted. No other try would go better, and none of its code has run.
    """
    from jobsvc.model.sealing import SecretUnreadable, opened

    start = port.start
    try:
        body, secrets = opened(node, start.body, start.id, start.secret_key)
    except SecretUnreadable as error:
        raise Rejected(str(error)) from None
    if secrets:
        port.veil = Veil(secrets)
        recent.append(port.veil)
    return body


class Rejected(Exception):
    """The attempt could not begin: there is no such task here, or its arguments do not fit."""


def code_of(codes: Mapping[str, Code], port: Port) -> Code:
    """The code of the attempt's task. Raises `Rejected` when there is none."""
    code = codes.get(port.start.task)
    if code is None:
        raise Rejected(f"this worker has no task {port.start.task!r}")
    return code


def run(codes: Mapping[str, Code], port: Port) -> Ending:
    """How it ended. The attempt has begun; the caller finishes it.

    Raises:
        SystemExit, KeyboardInterrupt: the task's code did.
    """
    try:
        code = code_of(codes, port)
        value = code.call(port)
        if code.kind == "generator":
            value = _stream(value, port)
        return None, result_text(value), None
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever authors raise, asyncio's CancelledError too: it is an end
        return raised(error, port, codes)


def _stream(generator: Generator[Any, Any, Any], port: Port) -> Any:
    """Every yield is an item of `out`; what the generator returns is the result."""
    try:
        advance, item = generator.__next__, port.item
        while True:
            try:
                value = advance()
            except StopIteration as end:
                return end.value
            item(OUT, encode_result(value))
            if port.cancel_reason is not None:
                raise Cancelled("stopped at a yield")
    finally:
        # Its own clean-up runs here; nothing when it has ended.
        generator.close()


def result_text(value: Any) -> bytes:
    """JSON of a result.

    Raises:
        NotSerialisable: it has none.
        TooLarge: more than `RESULT_MAX_BYTES`.
    """
    text = encode_result(value)
    if len(text) > RESULT_MAX_BYTES:
        raise TooLarge("the result", len(text), RESULT_MAX_BYTES)
    return text


def raised(error: BaseException, port: Port, codes: Mapping[str, Code]) -> Ending:
    """How the attempt ended, by what was raised. Raises nothing, whatever the author's class does when it is looked at:
    an attempt without an end would never leave its slot.
    """  # fmt: skip
    try:
        return _judged(error, port, codes)
    except BaseException:  # noqa: BLE001 - as above
        return (
            JobError("task_error", message="the task raised an exception that cannot be looked at"),
            b"",
            None,
        )


def _judged(error: BaseException, port: Port, codes: Mapping[str, Code]) -> Ending:
    if isinstance(error, Snooze):
        return None, b"", Again("snooze", error.after_s, None if error.at is None else time_us(error.at))
    if isinstance(error, Retry):
        return task_error(error, port.veil), b"", Again("retry", error.after_s)
    known = _of_ours(error, port)
    if known is not None:
        return known, b"", None
    code = codes.get(port.start.task)
    unworthy = isinstance(error, Exception) and code is not None and not code.worth.allows(error)
    return task_error(error, port.veil), b"", Again("never") if unworthy else None


def _of_ours(error: BaseException, port: Port) -> JobError | None:
    """What a kind of its own stands for; None for errors of the task."""
    if isinstance(error, Rejected):
        return JobError("rejected", message=str(error))
    if isinstance(error, NotSerialisable):
        return JobError("not_serialisable", message=str(error))
    if isinstance(error, TooLarge):
        return JobError("too_large", message=str(error))
    if isinstance(error, Cancelled) and port.cancel_reason is not None:
        return JobError("cancelled", type_name(error), str(error))
    return None
