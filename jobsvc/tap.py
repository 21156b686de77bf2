"""F5: what `twistd jobsvc` and `twist jobsvc` call: the options, and the service made from them.

`makeService` only builds objects: twistd forks after it and before the service starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar, cast

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python import usage

from jobsvc.config import OPTIONS, Config, ConfigError, gather

_log = Logger()


class Options(usage.Options):
    """The command line of the daemon, made from the table in `jobsvc.config`."""

    synopsis = "[options] --tasks MODULE"
    longdesc = (
        "Runs jobs that programs submit over HTTP. Example: twistd -n jobsvc --tasks mytasks. "
        "Each option can also be given by the environment variable named with it, or in a file (see --config); "
        "jobsvc config show prints what is in force and where it comes from."
    )
    optFlags: ClassVar[list[list[str | None]]] = [
        [o.name, None, f"{o.doc} [env: {o.variable}]"] for o in OPTIONS if o.flag
    ]
    optParameters: ClassVar[list[list[str | None]]] = [
        [o.name, None, None, f"{o.doc} [env: {o.variable}]"] for o in OPTIONS if not o.flag and not o.repeat
    ]

    def __init__(self) -> None:
        super().__init__()
        self.config: Config | None = None
        self.notes: list[str] = []

    def parseOptions(self, options: Any = None) -> None:
        """See twisted. Below twistd and twist one line on stderr ends the process: they would print the whole help,
        twistd on stdout.
        """  # fmt: skip
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            raise SystemExit(f"jobsvc: {error}; twistd jobsvc --help lists the options") from None

    def postOptions(self) -> None:
        """Check everything that can be checked without starting. Raises UsageError: one line."""
        given: dict[str, Any] = {}
        for option in OPTIONS:
            value = self.get(option.name)
            if option.flag:
                value = "1" if value else None
            if value not in (None, []):
                given[option.name] = value
        settings = gather(given, os.environ)
        if settings.problems:
            raise usage.UsageError(str(ConfigError(*settings.problems)))
        self.config, self.notes = settings.config, settings.notes


def _repeatable(name: str, doc: str) -> Callable[[Options, str], None]:
    def take(self: Options, value: str) -> None:
        self.setdefault(name, []).append(value)

    take.__doc__ = doc
    return take


for _option in OPTIONS:
    if _option.repeat:
        setattr(
            Options,
            f"opt_{_option.field}",
            _repeatable(_option.name, f"{_option.doc} [env: {_option.variable}]"),
        )


def makeService(options: Options) -> Service:
    """The daemon as a service, for twistd, twist and for people who compose services.

    Started by twistd or twist, the reactor's clock becomes the monotonic one before any timer exists, so that a
    stepped wall clock moves no timer; composers' reactors are left alone.
    """
    from twisted.internet import reactor

    from jobsvc.service import Daemon

    if options.config is None:
        options.postOptions()
    assert options.config is not None
    for note in options.notes:
        _log.warn("{note}", note=note, action="settings_note")
    ours = options.parent is not None
    if ours:
        cast("Any", reactor).seconds = monotonic
    return Daemon(options.config, cast("IReactorCore", reactor), owns_process=ours)
