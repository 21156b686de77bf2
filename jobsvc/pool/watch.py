"""F2: watches the files of the task modules, for `--reload`: told by the kernel, not by looking again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from twisted.internet.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MOVED_TO, INotify
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.filepath import FilePath

SETTLE_S = 0.2
"""Editors write a file in several steps, tools write several files: one reload when it has been quiet for this long."""

CHANGES = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_TO
"""Written in place, or written beside and moved over, as editors do."""


def folders(modules: Sequence[str], path: Sequence[str], start: Path) -> Iterator[Path]:
    """The folders in which the named modules lie: a package with all folders below it, or the folder of a file."""
    for module in modules:
        parts = module.split(".")
        for root in (*map(Path, path), start):
            package = root.joinpath(*parts)
            if package.is_dir():
                yield package
                yield from (
                    below for below in package.rglob("*") if below.is_dir() and below.name != "__pycache__"
                )
                break
            if package.with_suffix(".py").is_file():
                yield package.parent
                break


class ModuleWatch:
    """Calls `changed` once after one or more Python files near the task modules have changed."""

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, modules: Sequence[str], path: Sequence[str], changed: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._modules = modules
        self._path = path
        self._changed = changed
        self._notify: INotify | None = None
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """From now on."""
        self._notify = INotify(self._reactor)
        self._notify.startReading()
        seen = set(folders(self._modules, self._path, Path.cwd()))
        for folder in seen:
            self._notify.watch(FilePath(str(folder)), mask=CHANGES, callbacks=[self._noticed])
        self._log.info("watching {n} folders for changed code", n=len(seen), action="watching")

    def _noticed(self, _watch: object, file: FilePath[bytes] | FilePath[str], _mask: int) -> None:
        name = file.path if isinstance(file.path, str) else file.path.decode(errors="replace")
        if not name.endswith(".py"):
            return
        if self._timer is not None and self._timer.active():
            self._timer.reset(SETTLE_S)
        else:
            self._timer = self._reactor.callLater(SETTLE_S, self._changed)

    def stop(self) -> None:
        """No more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._notify is not None:
            self._notify.loseConnection()
            self._notify = None
