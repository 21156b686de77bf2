"""What every test is held to: no failure goes unseen, no timer is left behind.

pytest-twisted does not fail on either. Here both fail the test that caused them, at its teardown.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
from twisted.logger import ILogObserver, globalLogBeginner, globalLogPublisher
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IReactorTime
    from twisted.logger import LogEvent
    from twisted.python.failure import Failure


class FlushFailures(Protocol):
    """Take the failures logged so far, as a test does that expects them.

    With types, only failures of these types are taken; the others still fail the test.
    """

    def __call__(self, *types: type[BaseException]) -> list[Failure]: ...


@implementer(ILogObserver)
class FailureLog:
    """Collects log events that carry a failure, until a test takes them."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self._events.append(event)

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        gc.collect()  # a failed Deferred in a cycle logs only when it is collected
        taken, kept = [], []
        for event in self._events:
            failure = cast("Failure", event["log_failure"])
            if not types or failure.check(*types):
                taken.append(failure)
            else:
                kept.append(event)
        self._events = kept
        return taken


def installed_reactor() -> IReactorTime | None:
    """The global reactor, if one was installed; asking for it must not install one."""
    return cast("IReactorTime | None", sys.modules.get("twisted.internet.reactor"))


def pytest_sessionstart() -> None:
    # Until logging begins, Twisted keeps every event in a buffer, and with it every failure and its frames.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Two files run at a time (see the Makefile). What is marked goes first, so that beside it run those that are first
    # by name: tests of commands, clients and the store, which start no daemon.
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def pytest_collection_finish() -> None:
    # What is alive now stays alive: out of the collector's sight, the collection after each test is cheap.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def failure_log() -> Iterator[FailureLog]:
    """Fail a test that leaves a logged failure or a timer of the global reactor."""
    reactor = installed_reactor()
    before = set() if reactor is None else {id(call) for call in reactor.getDelayedCalls()}
    seen = FailureLog()
    globalLogPublisher.addObserver(seen)
    try:
        yield seen
        complaints = [f"failure logged:\n{failure.getTraceback()}" for failure in seen.flush()]
    finally:
        globalLogPublisher.removeObserver(seen)
    reactor = installed_reactor()
    if reactor is not None:
        for call in reactor.getDelayedCalls():
            if id(call) not in before:
                complaints.append(f"timer left behind: {call}")
                cast("Callable[[], Any]", call.cancel)()  # the next test starts without it
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def flush_failures(failure_log: FailureLog) -> FlushFailures:
    """Take expected failures out of the log: ``assert len(flush_failures(ValueError)) == 1``."""
    return failure_log.flush
