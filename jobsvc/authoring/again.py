"""F1: what a task says about running again: `Retry` and `Snooze`, raised by its code, and the errors worth a retry.

Only the exceptions and their rules: what follows from them is the engine's to decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from jobsvc.model.limits import DURATION_MAX_S

ErrorClasses: TypeAlias = type[Exception] | Sequence[type[Exception]]
"""As after `except`: one class, or several."""


class Retry(Exception):
    """Raise it when this attempt has failed and you know when the next one makes sense.

    As in `raise Retry(after=30) from error`. The attempt counts. If the policy has one left, it starts after `after`
    instead of the backoff; otherwise the job fails with kind `task_error` and these words. Where a cancel was asked,
    the job ends `cancelled`. It is an ordinary exception: `finally` and `except Exception` see it; and a group of
    exceptions, as a TaskGroup raises it, is an error like any other whatever it holds.

    Args:
        after: seconds, or a timedelta, from 0 to a year; None: the policy's backoff.
        message: what the error says; default: the words of the exception that led to it.

    Raises:
        TypeError: `after` or `message` is of a wrong type.
        ValueError: `after` is out of its range.
    """

    after_s: float | None = None
    _message = ""

    def __init__(self, after: float | timedelta | None = None, message: str = "") -> None:
        super().__init__(after, message)
        if not isinstance(message, str):
            raise TypeError(f"Retry: message must be a str, not {message!r}")
        self.after_s = None if after is None else _seconds("Retry: after", after)
        self._message = message

    def __str__(self) -> str:
        if self._message:
            return self._message
        led = self.__cause__ or (None if self.__suppress_context__ else self.__context__)
        return "to be tried again" if led is None else f"{type(led).__qualname__}: {led}"


class Snooze(Exception):
    """Raise it when the job cannot be done yet and nothing is wrong: it waits, and runs again then.

    As in `raise Snooze(timedelta(minutes=5))`. The attempt counts for nothing. The job is `retrying`, reason
    `snoozed`, and its `run_at` shows when it runs again; meanwhile `expires_at` and the total timeout go on. Where a
    cancel was asked, the job ends `cancelled`; what is raised after a timeout has passed does not undo the timeout.
    It is an ordinary exception: `finally` and `except Exception` see it.

    Args:
        until: an aware datetime (one that has passed: at once); or from now on seconds or a timedelta, from 0. At most
            a year from now.

    Raises:
        TypeError: `until` is of a wrong type.
        ValueError: it is out of its range, or a datetime without a time zone.
    """

    after_s: float | None = None
    at: datetime | None = None

    def __init__(self, until: datetime | timedelta | float) -> None:
        super().__init__(until)
        if isinstance(until, datetime):
            self.at = _moment(until)
        else:
            self.after_s = _seconds("Snooze: until", until, "an aware datetime, ")

    def __str__(self) -> str:
        return (
            f"snoozed for {self.after_s:g} s" if self.at is None else f"snoozed until {self.at.isoformat()}"
        )


Retry.__module__ = Snooze.__module__ = "jobsvc"  # their public home: errors and tracebacks name them by it


def _seconds(what: str, value: Any, otherwise: str = "") -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be {otherwise}a number of seconds or a timedelta, not {value!r}")
    if not (math.isfinite(value) and 0 <= value <= DURATION_MAX_S):
        raise ValueError(f"{what} must be from 0 up to {DURATION_MAX_S:.0f} seconds, not {value!r}")
    return float(value)


def _moment(until: datetime) -> datetime:
    if until.utcoffset() is None:
        raise ValueError(
            f"Snooze: until is {until.isoformat()} without a time zone: give an aware datetime, as of"
            " datetime.now(UTC), or seconds from now"
        )
    if (until - datetime.now(UTC)).total_seconds() > DURATION_MAX_S:
        raise ValueError(f"Snooze: until must be at most {DURATION_MAX_S:.0f} seconds ahead, not {until!r}")
    return until


class Worth(NamedTuple):
    """Which errors of a task are worth another try: those of `retry_on` (None: all) that are not of `give_up_on`."""

    retry_on: tuple[type[Exception], ...] | None = None
    give_up_on: tuple[type[Exception], ...] = ()

    def allows(self, error: BaseException) -> bool:
        """Whether this exception is worth one."""
        wanted = self.retry_on is None or isinstance(error, self.retry_on)
        return wanted and not isinstance(error, self.give_up_on)


def declare_worth(retry_on: ErrorClasses | None, give_up_on: ErrorClasses) -> Worth:
    """The rule of a task, checked.

    Raises:
        TypeError: something that is no class of exceptions.
        ValueError: a class in `retry_on` that `give_up_on` takes away again.
    """
    wanted = None if retry_on is None else _classes("retry_on", retry_on)
    unwanted = _classes("give_up_on", give_up_on)
    for each in wanted or ():
        over = next((other for other in unwanted if issubclass(each, other)), None)
        if over is not None:
            raise ValueError(
                f"retry_on: {each.__name__} is never tried again, because give_up_on has {over.__name__} and goes first"
            )
    return Worth(wanted, unwanted)


def _classes(what: str, given: Any) -> tuple[type[Exception], ...]:
    several = (given,) if isinstance(given, type) else given
    if isinstance(several, (str, bytes)) or not isinstance(several, Sequence):
        raise TypeError(
            f"{what} must be a class of exceptions or several, as (OSError, ValueError), not {given!r}"
        )
    for each in several:
        if not isinstance(each, type) or not issubclass(each, Exception):
            raise TypeError(f"{what} must hold subclasses of Exception, not {each!r}")
    return tuple(several)
