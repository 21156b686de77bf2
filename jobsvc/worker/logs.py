"""What Twisted logs in an io worker becomes output, like anything else that is printed.

F2. Warnings and worse that are logged in the context of an attempt belong to its job. The errors of Deferreds that
nobody waits for are told by the garbage collector, in whatever context it runs: these go to the process's own stderr.
"""

from __future__ import annotations

import sys
from typing import TextIO, cast

from twisted.internet.defer import CancelledError
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEventAsClassicLogText, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from jobsvc.worker.redaction import veiled

COLLECTED = "twisted.internet.defer"
"""Namespace of "Unhandled error in Deferred"."""


@implementer(ILogObserver)
class OutputObserver:
    """Writes warnings and worse to stderr.

    Args:
        own: the process's own stderr.
    """

    def __init__(self, own: TextIO) -> None:
        self._own = own

    def __call__(self, event: LogEvent) -> None:
        """One event of the log."""
        if event["log_level"] < LogLevel.warn:
            return
        collected = event.get("log_namespace") == COLLECTED
        failure = cast("Failure | None", event.get("log_failure"))
        if collected and (failure is None or failure.check(CancelledError)):
            # What was given up ends with it, and nobody is there to hear; without a failure this is the headline.
            return
        if collected:
            assert failure is not None
            self._own.write(veiled(f"Unhandled error in Deferred:\n{failure.getTraceback()}"))
        elif (text := formatEventAsClassicLogText(event)) is not None:
            sys.stderr.write(text)


def observe_logs() -> None:
    """From here on. Called once, after the output is captured."""
    globalLogBeginner.beginLoggingTo(
        [OutputObserver(cast("TextIO", sys.__stderr__))], redirectStandardIO=False
    )
