"""F1: the policy arguments of `task` and `command`, checked where they are written.

Every refusal names the argument, what it may be and what it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from jobsvc.model.limits import DURATION_MAX_S, NAME_MAX_CHARS, PRIORITY_MAX, PRIORITY_MIN, RETRIES_MAX
from jobsvc.model.task import NO_LIMITS, Backoff, Limits, OnLost, Policy, Timeouts

TimeoutArg: TypeAlias = float | Mapping[str, float | None] | Timeouts | None
"""Seconds for one attempt, or `{"run": …, "idle": …, "total": …}`."""
BackoffArg: TypeAlias = Mapping[str, float] | tuple[float, float] | Backoff | None
"""`{"base_s": …, "max_s": …}` or `(base_s, max_s)`."""

NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_.-]{{0,{NAME_MAX_CHARS - 1}}}")
"""Names of tasks and queues: they stand in URLs, in file names and on command lines."""


class Declared(msgspec.Struct, frozen=True):
    """The policy arguments of one task, checked."""

    queue: str
    priority: int
    concurrency: int | None
    policy: Policy
    limits: Limits = NO_LIMITS


def declare(
    *,
    timeout: TimeoutArg,
    retries: int,
    backoff: BackoffArg,
    queue: str,
    priority: int,
    concurrency: int | None,
    on_lost: OnLost,
) -> Declared:
    """The arguments as data.

    Raises:
        TypeError: one is of a wrong type.
        ValueError: one is out of its range.
    """
    if on_lost not in get_args(OnLost):
        raise ValueError(f"on_lost must be 'retry' or 'fail', not {on_lost!r}")
    return Declared(
        queue=checked_name("queue", queue),
        priority=_integer("priority", priority, PRIORITY_MIN, PRIORITY_MAX),
        concurrency=None if concurrency is None else _integer("concurrency", concurrency, 1, None),
        policy=Policy(
            max_attempts=1 + _integer("retries", retries, 0, RETRIES_MAX),
            backoff=_backoff(backoff),
            on_lost=on_lost,
            timeouts=_timeouts(timeout),
        ),
    )


def checked_name(what: str, name: Any) -> str:
    """A name of a task or queue. Raises TypeError or ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {name!r}")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{what} must be 1 to {NAME_MAX_CHARS} letters, digits, _, . or -, the first a letter or _, not {name!r}"
        )
    return name


def _integer(what: str, value: Any, least: int, most: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, not {value!r}")
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{what} must be {allowed}, not {value}")
    return value


def _seconds(what: str, value: Any, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {value!r}")
    if not (math.isfinite(value) and 0 <= value <= DURATION_MAX_S and (zero or value > 0)):
        least = "from 0" if zero else "above 0 and"
        raise ValueError(f"{what} must be {least} up to {DURATION_MAX_S:.0f} seconds, not {value!r}")
    return float(value)


def _mapping(what: str, value: Any, keys: tuple[str, ...], otherwise: str) -> dict[str, Any]:
    if isinstance(value, (Timeouts, Backoff)):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be {otherwise} or a mapping with {', '.join(keys)}, not {value!r}")
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise ValueError(f"{what} knows {', '.join(keys)}, not {unknown[0]!r}")
    return dict(value)


def _timeouts(value: Any) -> Timeouts:
    if value is None:
        return Timeouts()
    if isinstance(value, (int, float)):
        return Timeouts(run=_seconds("timeout", value))
    given = _mapping("timeout", value, ("run", "idle", "total"), "a number of seconds")
    return Timeouts(
        **{key: None if part is None else _seconds(f"timeout[{key!r}]", part) for key, part in given.items()}
    )


def _backoff(value: Any) -> Backoff:
    if value is None:
        return Backoff()
    if isinstance(value, tuple):
        if len(value) != 2:  # noqa: PLR2004  # base and maximum
            raise ValueError(f"backoff as a tuple is (base_s, max_s), not {value!r}")
        value = {"base_s": value[0], "max_s": value[1]}
    given = _mapping("backoff", value, ("base_s", "max_s"), "a tuple (base_s, max_s)")
    made = Backoff(**{key: _seconds(f"backoff[{key!r}]", part, zero=True) for key, part in given.items()})
    if made.max_s < made.base_s:
        raise ValueError(f"backoff: max_s ({made.max_s:g}) must not be below base_s ({made.base_s:g})")
    return made
