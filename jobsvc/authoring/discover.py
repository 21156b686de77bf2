"""F1: tasks found by looking at the names of modules. There is no registry: what a module does not name is no task."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

from jobsvc.authoring.command import Command
from jobsvc.authoring.task import Task

AnyTask: TypeAlias = Task[..., Any] | Command


class ModuleLoadError(Exception):
    """A task module that cannot be used.

    Args:
        module: its name, as it was given.
        detail: one line for people: what is wrong.
        traceback_text: where it went wrong, from the module's own lines on; "" where there is no such place.
    """

    def __init__(self, module: str, detail: str, traceback_text: str = "") -> None:
        super().__init__(
            f"task module {module}: {detail}" + (f"\n{traceback_text}" if traceback_text else "")
        )
        self.module = module
        self.detail = detail
        self.traceback_text = traceback_text

    def __reduce__(self) -> tuple[type[ModuleLoadError], tuple[str, str, str]]:
        return (ModuleLoadError, (self.module, self.detail, self.traceback_text))


def load(modules: Sequence[str], path: Sequence[str] = ()) -> dict[str, AnyTask]:
    """Tasks of these modules, which are looked for on `path` before anything else. Raises as `discover`."""
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    importlib.invalidate_caches()
    return discover(modules)


def discover(modules: Sequence[str]) -> dict[str, AnyTask]:
    """Import the modules and give the tasks that they name, in the order in which they stand there.

    A task that two of them name is one task. What the modules import from elsewhere counts as theirs: a module may
    gather the tasks of others.

    Raises:
        ModuleLoadError: a module is not found, does not import, names two tasks alike, has a task whose annotations
            cannot be used, or no task at all.
    """
    finder = Finder()
    for module in modules:
        finder.add(module)
    return finder.found


class Finder:
    """Finds the tasks of one module after the other; one that cannot be used leaves nothing of it behind.

    `found` are the tasks so far, by name.
    """

    def __init__(self) -> None:
        self.found: dict[str, AnyTask] = {}
        self._places: dict[str, str] = {}

    def add(self, module_name: str) -> list[str]:
        """Import the module; the names of its tasks. Raises as `discover`."""
        module = _imported(module_name)
        found, places = dict(self.found), dict(self._places)
        names: list[str] = []
        for attribute, value in list(vars(module).items()):
            if not isinstance(value, (Task, Command)):
                continue
            place = f"{module_name}.{attribute}"
            known = found.setdefault(value.name, value)
            first = places.setdefault(value.name, place)
            if known is not value:
                raise ModuleLoadError(
                    module_name,
                    f"two tasks are called {value.name!r}: {first} and {place}; give one of them name=…",
                )
            _check(module_name, value)
            if value.name not in names:
                names.append(value.name)
        if not names:
            raise ModuleLoadError(module_name, "it names no tasks; decorate a function with @jobsvc.task")
        self.found, self._places = found, places
        return names


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = (
                "a module is named without .py and with dots"
                if name.endswith(".py") or "/" in name
                else "start where it lies, or name its folder with --path"
            )
            raise ModuleLoadError(name, f"there is no module {error.name!r} on the path; {hint}") from error
        raise ModuleLoadError(name, _line(error), _traceback_of(error)) from error
    except BaseException as error:  # SystemExit too: a module that exits must not take its worker along
        raise ModuleLoadError(name, _line(error), _traceback_of(error)) from error


def _check(module_name: str, value: AnyTask) -> None:
    """What could not be resolved at decoration must be there now that the module is complete."""
    try:
        value.spec()
    except (NameError, TypeError) as error:
        raise ModuleLoadError(
            module_name,
            f"{_line(error)}; annotations are needed when the module runs, not under TYPE_CHECKING"
            if isinstance(error, NameError)
            else _line(error),
        ) from error


def _line(error: BaseException) -> str:
    """The error on one line, as Python itself ends a traceback."""
    return traceback.format_exception_only(error)[-1].strip()


def _traceback_of(error: BaseException) -> str:
    """The traceback without our own frames and those of the import system."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__
        and not frame.filename.startswith("<frozen importlib")
        and frame.filename != importlib.__file__
    ]
    head = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    return "".join([*head, *traceback.format_exception_only(error)]).rstrip()
