"""F3: our lines in the place of those that twistd or twist would write, at the place the operator named to them.

twistd asks the application for an `ILogObserver` before it opens a log of its own; twist takes the observer's factory
from its options. `--logger` of twistd is the operator's own choice and stays in force.
"""

from __future__ import annotations

import logging
import os
import sys
import syslog
from collections import Counter
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from jobsvc.logs.flood import Flood
from jobsvc.logs.lines import LEVELS, Event, human_line, json_line
from jobsvc.logs.sink import PRIORITIES, Sink

Format = Literal["auto", "json", "human"]
Level = Literal["debug", "info", "warn", "error"]

DAEMON_FILE: Final = "twistd.log"
"""Where twistd without -n logs when it is told nothing."""


class Lines(Protocol):
    """Who takes lines."""

    def write(self, line: str, level: str) -> None:
        """One line, without its end; its level by name."""


class Syslog:
    """Lines to the system's log, as `twistd --syslog` wants it."""

    def __init__(self, prefix: str) -> None:
        syslog.openlog(prefix, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, line: str, level: str) -> None:
        """One line."""
        syslog.syslog(PRIORITIES[level], line)


@implementer(ILogObserver)
class Log:
    """The daemon's log: an observer of twisted.logger.

    Args:
        lines: where they go.
        line: what makes one of an event.
        level: events below it are left out.
        flood: holds back warnings and errors of one place when there are too many.

    Attributes:
        counts: lines written, by level.
    """

    def __init__(
        self, lines: Lines, line: Callable[[Event], str], level: Level, flood: Flood | None = None
    ) -> None:
        self.lines = lines
        self.level: Level = level
        self.counts: Counter[str] = Counter()
        self._line = line
        self._least = LEVELS[level]
        self._flood = Flood() if flood is None else flood

    def __call__(self, event: Event) -> None:
        """An event; runs in the thread that logs."""
        level = event.get("log_level") or LogLevel.info
        if level < self._least:
            return
        self.counts[level.name] += 1
        if level >= LogLevel.warn:
            missed = self._flood.passes((str(event.get("log_namespace")), str(event.get("log_format"))))
            if missed is None:
                return
            if missed:
                event = {**event, "held_back_before": missed}
        try:
            line = self._line(event)
        except Exception as error:  # noqa: BLE001 - the log must not fail whoever logs, nor lose that something was said
            line = f"an event of {event.get('log_namespace')!r} cannot be shown: {type(error).__name__}"
        self.lines.write(line, level.name)

    # -- life; a sink of another kind has none

    def begin(self) -> None:
        """The process has forked for the last time: write off the reactor."""
        if isinstance(self.lines, Sink):
            self.lines.begin()

    def end(self) -> None:
        """The process is about to end: nothing is to be left in memory."""
        if isinstance(self.lines, Sink):
            self.lines.end()

    def reopen(self) -> str | None:
        """The file, opened anew; None when there is none. Raises OSError: the old one goes on."""
        if not isinstance(self.lines, Sink) or self.lines.path is None:
            return None
        self.lines.reopen()
        return str(self.lines.path)

    @property
    def dropped(self) -> int:
        """Lines that were lost, since nobody took them or too many were alike."""
        return self._flood.held_back + (self.lines.dropped if isinstance(self.lines, Sink) else 0)


def take_over(launcher: MutableMapping[str, Any], form: Format = "auto", level: Level = "info") -> Log | None:
    """The log in the place of the launcher's; None when the operator has chosen another with `--logger`.

    Nothing is written before the launcher begins to log: under twistd the application must be given the observer.

    Args:
        launcher: the options of twistd or twist; twist's are changed.

    Raises:
        OSError: the log file cannot be opened.
    """
    log = (
        _under_twist(launcher, form, level) if "logFile" in launcher else _under_twistd(launcher, form, level)
    )
    if log is not None:
        bridge_logging(level)
    return log


def _under_twist(launcher: MutableMapping[str, Any], form: Format, level: Level) -> Log:
    stream = launcher["logFile"]
    name = getattr(stream, "name", None)
    standard = stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    path = Path(name).absolute() if isinstance(name, str) and not standard else None
    sink = Sink(None if path is not None else stream.fileno(), path)
    # What was said to twist itself counts where nothing was said to us; it chooses text on a terminal, else JSON.
    asked, chosen = launcher.get("logFormat"), "text" if sys.stdout.isatty() else "json"
    if form == "auto" and asked not in {None, chosen}:
        form = "human" if asked == "text" else "json"
    if level == "info" and launcher["logLevel"].name in LEVELS:
        level = launcher["logLevel"].name
    log = Log(sink, _form(form, sink), level)
    launcher["fileLogObserverFactory"] = lambda _stream: log
    launcher["logLevel"] = LogLevel.debug  # ours decides
    return log


def _under_twistd(launcher: MutableMapping[str, Any], form: Format, level: Level) -> Log | None:
    if launcher.get("logger"):
        return None
    if launcher.get("syslog"):
        return Log(
            Syslog(launcher.get("prefix") or "jobsvc"), human_line if form == "human" else json_line, level
        )
    name, foreground = launcher.get("logfile"), bool(launcher.get("nodaemon") or launcher.get("debug"))
    if name == "-" and not foreground:
        raise SystemExit("jobsvc: twistd --logfile=- needs -n: in the background there is no stdout")
    if name == "-" or (foreground and not name):
        sink = Sink(_descriptor())
    else:
        sink = Sink(path=Path(name or DAEMON_FILE).absolute())  # before the launcher changes its folder
    return Log(sink, _form(form, sink), level)


def _descriptor() -> int:
    stream = sys.__stdout__ if sys.__stdout__ is not None else sys.stdout
    return stream.fileno()


def _form(form: Format, sink: Sink) -> Callable[[Event], str]:
    human = form == "human" or (form == "auto" and sink.path is None and os.isatty(sink.descriptor))
    return human_line if human else json_line


class Bridge(logging.Handler):
    """What libraries say by the standard library's logging, as events of twisted.logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: the library's mistake
            text = str(record.msg)
        log = Logger(namespace=record.name)
        failure: dict[str, Any] = {}
        if record.exc_info is not None and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            failure = {"log_failure": Failure(error, kind, trace)}
        log.emit(_level_of(record.levelno), "{text}", text=text, log_source=None, **failure)


def _level_of(number: int) -> Any:
    for level, least in (
        (LogLevel.critical, logging.CRITICAL),
        (LogLevel.error, logging.ERROR),
        (LogLevel.warn, logging.WARNING),
        (LogLevel.info, logging.INFO),
    ):
        if number >= least:
            return level
    return LogLevel.debug


def bridge_logging(level: Level) -> None:
    """Hand what the standard library's logging gets to twisted.logger, from `level` on; once."""
    root = logging.getLogger()
    if not any(isinstance(handler, Bridge) for handler in root.handlers):
        root.addHandler(Bridge())
    root.setLevel(logging.getLevelName({"warn": "WARNING"}.get(level, level.upper())))
