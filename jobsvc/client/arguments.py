"""F2: what is given to `JobExecutor.submit`, as the name of a task and its arguments. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def arguments_of(
    fn: str | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str, Sequence[Any] | Mapping[str, Any]]:
    """The task's name, and its arguments by position or by name.

    Both at once need the task itself, whose signature gives those by position their names.

    Raises:
        TypeError: `fn` is no task, or the arguments do not go together.
    """
    if isinstance(fn, str):
        if args and kwargs:
            raise TypeError(
                f"submit({fn!r}, ...): a job takes its arguments by position or by name. To mix them give the task "
                "itself (the decorated function) instead of its name: its signature tells which is which"
            )
        return fn, kwargs or args
    names = _names_of(fn)
    if len(args) > len(names):
        raise TypeError(f"{fn!r} takes {len(names)} arguments, and {len(args)} were given by position")
    if unknown := [name for name in kwargs if name not in names]:
        raise TypeError(f"{fn!r} has no argument {unknown[0]!r}; its arguments: {', '.join(names) or 'none'}")
    if twice := [name for name in names[: len(args)] if name in kwargs]:
        raise TypeError(f"{fn!r} got argument {twice[0]!r} by position and by name")
    name: str = fn.name  # type: ignore[attr-defined]  # a task, as _names_of has seen
    return name, {**dict(zip(names, args, strict=False)), **kwargs} if kwargs else args


def _names_of(fn: object) -> list[str]:
    """The names of a task's arguments, in order."""
    # Only who gives a task has these modules already; others need not load them.
    from jobsvc.authoring.command import Command
    from jobsvc.authoring.task import Task

    if not isinstance(fn, Task | Command):
        raise TypeError(
            f"{fn!r} is no task: give the name of one, or a function decorated with @task (jobs run in workers, "
            "which know functions only as tasks)"
        )
    return [field.name for field in fn.node.fields]
