"""F1: the argument `limits` of `task` and `command`, checked where it is written.

Every refusal names the limit, what it may be and what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from jobsvc.model.limits import (
    CPU_MOST_S,
    OPEN_FILES_LEAST,
    OPEN_FILES_MOST,
    RSS_LEAST_BYTES,
    USE_MOST_BYTES,
)
from jobsvc.model.sizes import parse_size, size_text
from jobsvc.model.task import NO_LIMITS, Limits

LimitsArg: TypeAlias = Mapping[str, int | str | None] | Limits | None
"""`{"max_rss": "512M", "cpu_s": 60, "open_files": 256, "file_bytes": "1G"}`, any of them."""

OWN_PROCESS = frozenset(("process", "command"))
"""Executors whose attempts have a process to themselves: only that can be limited."""

_SHARERS = {"thread": "a thread shares its worker", "loop": "a coroutine shares its worker"}


def checked_limits(value: LimitsArg, executor: str) -> Limits:
    """The limits of a task that runs on `executor`.

    Raises:
        TypeError: no mapping, or one of its values is of a wrong type.
        ValueError: a limit that there is not, one out of its range, an executor that cannot be limited.
    """
    if value is None:
        return NO_LIMITS
    given: Any = msgspec.structs.asdict(value) if isinstance(value, Limits) else value
    if not isinstance(given, Mapping):
        raise TypeError(f"limits must be a mapping with {', '.join(_CHECKS)}, not {value!r}")
    unknown = [key for key in given if key not in _CHECKS]
    if unknown:
        raise ValueError(f"limits knows {', '.join(_CHECKS)}, not {unknown[0]!r}")
    limits = Limits(**{key: None if part is None else _CHECKS[key](part) for key, part in given.items()})
    if limits != NO_LIMITS and executor not in OWN_PROCESS:
        raise ValueError(f"{_SHARERS[executor]}: limits need executor='process' or a command")
    return limits


def _size(what: str, value: Any, least: int) -> int:
    if isinstance(value, str):
        try:
            size = parse_size(value)
        except ValueError as error:
            raise ValueError(f"limits[{what!r}]: {error}") from None
    elif isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"limits[{what!r}] must be a number of bytes, or text like '512M', not {value!r}")
    else:
        size = value
    if not least <= size <= USE_MOST_BYTES:
        raise ValueError(
            f"limits[{what!r}] must be from {size_text(least)} to {size_text(USE_MOST_BYTES)}, not {value!r}"
        )
    return size


def _whole(what: str, value: Any, least: int, most: int, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"limits[{what!r}] must be a whole number of {unit}, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"limits[{what!r}] must be from {least} to {most} {unit}, not {value}")
    return value


_CHECKS = {
    "max_rss": lambda value: _size("max_rss", value, RSS_LEAST_BYTES),
    "cpu_s": lambda value: _whole("cpu_s", value, 1, CPU_MOST_S, "seconds"),
    "open_files": lambda value: _whole("open_files", value, OPEN_FILES_LEAST, OPEN_FILES_MOST, "descriptors"),
    "file_bytes": lambda value: _size("file_bytes", value, 1),
}
