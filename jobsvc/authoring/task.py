"""F1: `@task`: a plain Python function becomes a task, and stays a plain function."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

import msgspec

from jobsvc.authoring.again import ErrorClasses, Worth, declare_worth
from jobsvc.authoring.context import Context
from jobsvc.authoring.limits import LimitsArg, checked_limits
from jobsvc.authoring.policy import BackoffArg, Declared, TimeoutArg, checked_name, declare
from jobsvc.authoring.signature import Signature, parameters_of
from jobsvc.model.task import OnLost, Port, TaskSpec
from jobsvc.model.typetree import TypeNode, to_bytes

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

TaskKind = Literal["coroutine", "function", "generator", "async_generator"]
FunctionExecutor = Literal["loop", "thread", "process"]

_DEFAULT_EXECUTOR: Mapping[TaskKind, FunctionExecutor] = {
    "coroutine": "loop",
    "async_generator": "loop",
    "function": "thread",
    "generator": "thread",
}
_ALLOWED_EXECUTORS: Mapping[TaskKind, tuple[FunctionExecutor, ...]] = {
    "coroutine": ("loop",),
    "async_generator": ("loop",),
    "function": ("loop", "thread", "process"),
    "generator": ("thread", "process"),
}
_KIND_WORDS: Mapping[TaskKind, str] = {
    "coroutine": "an async def",
    "async_generator": "an async generator",
    "function": "a plain function",
    "generator": "a generator",
}


class Task(Generic[P, R_co]):
    """A function with its policy. Calling it just calls the function: no daemon, no job.

    Made by `task`. The types of its parameters are looked at when it is decorated; where an annotation names what is
    defined further down in the module, when they are first needed.

    Args:
        fn: the function.
        name: the task's name, checked.
        executor: where it runs, checked against its kind.
        declared: the policy arguments, checked.
        worth: which of its errors are worth another try.
        names: local names at the place of decoration, for annotations.
    """

    __name__: str

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str,
        executor: FunctionExecutor,
        declared: Declared,
        worth: Worth,
        names: Mapping[str, Any],
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name
        self.executor = executor
        self.kind: TaskKind = _kind(fn)
        self.declared = declared
        self.worth = worth
        self.module: str = getattr(fn, "__module__", None) or "__main__"
        self._names: Mapping[str, Any] = names
        self._signature: Signature | None = None
        with contextlib.suppress(NameError):  # asked again when the module is complete
            self.signature()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name} ({self.module}.{getattr(self.fn, '__qualname__', '?')})>"

    def signature(self) -> Signature:
        """Its signature with all annotations resolved.

        Raises:
            NameError: an annotation names something that the module does not define.
            TypeError: a parameter has a type that cannot be made from JSON.
        """
        if self._signature is None:
            try:
                self._signature = Signature(self.fn, self._names)
            except (NameError, TypeError) as error:
                raise type(error)(f"task {self.name!r}: {error}") from error
            self._names = {}
        return self._signature

    @property
    def node(self) -> TypeNode:
        """The type tree of its arguments."""
        return self.signature().node

    @property
    def wants_context(self) -> bool:
        """Whether one of its parameters is a `Context`."""
        return self.signature().wants_context

    @property
    def streams(self) -> bool:
        """Whether it yields: every yield is an item of the job's `out` stream."""
        return self.kind in {"generator", "async_generator"}

    def bind(self, args_json: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call from their JSON, an object by name or an array by position; without the context.

        Raises:
            ArgsError: they do not fit the signature.
        """
        return (self._signature or self.signature()).bind(args_json)

    def invoke(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function with what `bind` gave, and with the context where it wants one.

        Returns: by `kind` the result, a coroutine, a generator or an async generator; a plain function on the loop may
        also give a Deferred or another awaitable.
        """
        (self._signature or self.signature()).inject(context, args, kwargs)
        call: Callable[..., Any] = self.fn
        return call(*args, **kwargs)

    def spec(self) -> TaskSpec:
        """Its entry in a manifest. Raises as `signature` does."""
        signature = self.signature()
        return TaskSpec(
            name=self.name,
            doc=first_paragraph(self.fn.__doc__),
            module=self.module,
            executor=self.executor,
            queue=self.declared.queue,
            priority=self.declared.priority,
            policy=self.declared.policy,
            concurrency=self.declared.concurrency,
            args_tree=to_bytes(signature.node),
            args_schema=msgspec.json.encode(signature.args_schema(self.name)),
            result_schema=msgspec.json.encode(signature.result_schema()),
            ports=(Port("out", "out"),) if self.streams else (),
            limits=self.declared.limits,
        )


class Decorator(Protocol):
    """What `task(...)` with arguments gives."""

    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]:
        """Make the function a task."""


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    executor: FunctionExecutor | None = None,
    timeout: TimeoutArg = None,
    retries: int = 0,
    backoff: BackoffArg = None,
    retry_on: ErrorClasses | None = None,
    give_up_on: ErrorClasses = (),
    queue: str = "default",
    priority: int = 0,
    concurrency: int | None = None,
    on_lost: OnLost = "retry",
    limits: LimitsArg = None,
) -> Decorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    executor: FunctionExecutor | None = None,
    timeout: TimeoutArg = None,
    retries: int = 0,
    backoff: BackoffArg = None,
    retry_on: ErrorClasses | None = None,
    give_up_on: ErrorClasses = (),
    queue: str = "default",
    priority: int = 0,
    concurrency: int | None = None,
    on_lost: OnLost = "retry",
    limits: LimitsArg = None,
) -> Any:
    """Make a function a task, with or without arguments: `@task` or `@task(executor="process", timeout=60)`.

    A parameter annotated with `Context` gets the job's context and is no argument. All others are JSON by their type
    hints; one without a hint takes any JSON. `*args` and `**kwargs` are refused. A generator streams: every `yield`
    is an item of the job's `out` stream, what it returns is the result. Its code may raise `Retry` to be tried again
    at a moment of its choice, and `Snooze` to wait without having failed.

    Args:
        name: default: the function's.
        executor: `loop`, `thread` or `process`. Default: `loop` for `async def`, else `thread`. A plain function on the
            loop must not block; it may return a Deferred.
        timeout: seconds for one attempt, or `{"run": …, "idle": …, "total": …}`.
        retries: further attempts after an error.
        backoff: `{"base_s": 1, "max_s": 600}` or `(1, 600)`: the delay before try n+1 is random, up to
            min(max_s, base_s * 2**(n-1)).
        retry_on: errors worth another try, as after `except`: a class or several. Default: all. What is not worth one
            ends the job at once, with `error.retryable` false; so does a result without a JSON form, for instance.
            Crashes, timeouts and losses are no exceptions: these rules do not touch them.
        give_up_on: errors not worth one, though they be of a class in `retry_on`.
        queue: its queue.
        priority: larger goes first, -100 to 100.
        concurrency: at most so many attempts at the same time.
        on_lost: `retry` (at least once) or `fail` (at most once), when what ran it is lost.
        limits: what one attempt may use, `{"max_rss": "512M", "cpu_s": 60, "open_files": 256, "file_bytes": "1G"}`,
            any of them; only with `executor="process"`.

    Raises:
        TypeError: an argument of a wrong type, a function that cannot be a task.
        ValueError: an argument out of its range.
    """

    def decorate(fn: Callable[..., Any], names: Mapping[str, Any]) -> Task[..., Any]:
        _check_function(fn)
        own_name = checked_name("name", getattr(fn, "__name__", None) if name is None else name)
        try:
            parameters_of(fn)
            declared = declare(
                timeout=timeout,
                retries=retries,
                backoff=backoff,
                queue=queue,
                priority=priority,
                concurrency=concurrency,
                on_lost=on_lost,
            )
            worth = declare_worth(retry_on, give_up_on)
            chosen = _executor(_kind(fn), executor)
            declared = msgspec.structs.replace(declared, limits=checked_limits(limits, chosen))
        except (TypeError, ValueError) as error:
            raise type(error)(f"task {own_name!r}: {error}") from None
        return Task(fn, name=own_name, executor=chosen, declared=declared, worth=worth, names=names)

    if fn is not None:
        return decorate(fn, _local_names(sys._getframe(1)))  # noqa: SLF001

    def decorator(fn: Callable[..., Any], /) -> Task[..., Any]:
        return decorate(fn, _local_names(sys._getframe(1)))  # noqa: SLF001

    return decorator


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())


def _local_names(frame: FrameType) -> Mapping[str, Any]:
    """Names of the function in which a task is defined, as in a unit test; none at the top of a module."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _kind(fn: Callable[..., Any]) -> TaskKind:
    if inspect.isasyncgenfunction(fn):
        return "async_generator"
    if inspect.iscoroutinefunction(fn):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(fn) else "function"


def _check_function(fn: Any) -> None:
    if isinstance(fn, Task):
        raise TypeError(f"{fn!r} is a task already")
    if isinstance(fn, type) or not callable(fn):
        raise TypeError(
            f"@task goes on a function, not on {fn!r}; its own arguments are given by name: @task(name=…)"
        )
    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError("@task goes on a function of a module, not on a method")


def _executor(kind: TaskKind, executor: Any) -> FunctionExecutor:
    if executor is None:
        return _DEFAULT_EXECUTOR[kind]
    known = get_args(FunctionExecutor)
    if executor == "command":
        raise ValueError("executor='command' is for command(…); a function runs on " + ", ".join(known))
    if executor not in known:
        raise ValueError(f"executor must be one of {', '.join(known)}, not {executor!r}")
    if executor not in _ALLOWED_EXECUTORS[kind]:
        allowed = " or ".join(_ALLOWED_EXECUTORS[kind])
        raise ValueError(f"executor={executor!r} does not run {_KIND_WORDS[kind]}; use {allowed}")
    chosen: FunctionExecutor = executor
    return chosen
