"""What every worker does first: read its configuration, find and import the task modules, say who it is.

F2, free of Twisted. The configuration is one JSON object on the command line, so that `ps` shows what a worker is.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from jobsvc.authoring.discover import Finder, ModuleLoadError
from jobsvc.authoring.task import Task
from jobsvc.model.frames import PROTO, Hello, Manifest
from jobsvc.worker.bytecode import forget_fresh
from jobsvc.worker.running import Code

STDERR_FD = 2


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon tells a worker at its start.

    `path` goes before the start folder in the module path; `package_dir`, which holds this package, goes last.
    `channel` and `mark` are descriptors; without a mark the worker makes a page of its own.
    """

    kind: Literal["cpu", "io"]
    boot: str
    modules: tuple[str, ...]
    path: tuple[str, ...] = ()
    package_dir: str | None = None
    channel: int
    mark: int | None = None
    threads: int = 1


def read_config(words: list[str]) -> Config:
    """The configuration on this command line: `--config JSON`.

    Raises:
        SystemExit: it is not there or makes no sense; says what to do.
    """
    match words:
        case ["--config", text]:
            try:
                return msgspec.json.decode(text, type=Config)
            except msgspec.MsgspecError as error:
                raise SystemExit(f"--config: {error}") from None
        case _:
            raise SystemExit("a worker is started by the daemon, with --config JSON")


def prepare_path(config: Config) -> None:
    """Where modules are looked for: the configured folders, the start folder, the rest, this package."""
    first = list(dict.fromkeys([*map(os.path.abspath, config.path), os.getcwd()]))  # noqa: PTH109 - as above
    sys.path[:] = first + [entry for entry in sys.path if entry and entry not in first]
    if config.package_dir is not None and config.package_dir not in sys.path:
        sys.path.append(config.package_dir)


def hello(config: Config) -> Hello:
    """The first message."""
    return Hello(PROTO, os.getpid(), config.boot)


def load_code(config: Config, announce: Callable[[str], None]) -> tuple[dict[str, Code], Manifest]:
    """The code that runs in workers, by task, and the manifest: what each module holds, or why it did not load.

    Args:
        announce: says that the import of this module begins, and must have said it when it returns.
    """
    prepare_path(config)
    # A crash in native code then leaves the Python stack on stderr, which is the output of the job that crashed.
    faulthandler.enable(file=STDERR_FD)
    finder = Finder()
    modules: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for module in config.modules:
        announce(module)
        try:
            modules[module] = finder.add(module)
        except ModuleLoadError as error:
            errors[module] = str(error)
    forget_fresh(time.time())
    codes = {name: Code(task) for name, task in finder.found.items() if isinstance(task, Task)}
    return codes, Manifest([task.spec() for task in finder.found.values()], modules, errors)
