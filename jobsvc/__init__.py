"""jobsvc: a job daemon on Twisted. These are the names a task author imports; each is loaded when it is first used.

Duty: the public names, and nothing else. Must not import Twisted, nor anything heavy: workers start from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobsvc.authoring.again import Retry as Retry
    from jobsvc.authoring.again import Snooze as Snooze
    from jobsvc.authoring.command import Command as Command
    from jobsvc.authoring.command import command as command
    from jobsvc.authoring.context import Cancelled as Cancelled
    from jobsvc.authoring.context import Context as Context
    from jobsvc.authoring.task import Task as Task
    from jobsvc.authoring.task import task as task
    from jobsvc.model.secret import Secret as Secret

_HOMES = {
    "Cancelled": "jobsvc.authoring.context",
    "Command": "jobsvc.authoring.command",
    "Context": "jobsvc.authoring.context",
    "Retry": "jobsvc.authoring.again",
    "Secret": "jobsvc.model.secret",
    "Snooze": "jobsvc.authoring.again",
    "Task": "jobsvc.authoring.task",
    "command": "jobsvc.authoring.command",
    "task": "jobsvc.authoring.task",
}

__all__ = ["Cancelled", "Command", "Context", "Retry", "Secret", "Snooze", "Task", "command", "task"]


if not TYPE_CHECKING:  # type checkers would take any name for a public one

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'jobsvc' has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value  # asked for once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
