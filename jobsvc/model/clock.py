"""F0: times as this project writes them: integer microseconds inside, RFC 3339 text in UTC outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobsvc.model.errors import invalid_field

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, said by the Z: isoformat would write +00:00
TIME_MIN_US = 0
"""Earliest time that a client may name: an older one is a mistake."""
TIME_MAX_US = 253_402_300_799_999_999
"""Latest one, the end of the year 9999: RFC 3339 has no later one, though an offset can lead beyond it."""


def time_text(us: int) -> str:
    """`YYYY-MM-DDTHH:MM:SS.ffffffZ` of microseconds since the epoch. What no such text can say is shown as the nearest
    that can: a stored time must never keep its row from being read.
    """  # fmt: skip
    moment = _NAIVE_EPOCH + timedelta(microseconds=min(max(us, TIME_MIN_US), TIME_MAX_US))
    return moment.isoformat(timespec="microseconds") + "Z"


def time_us(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def named_time_us(pointer: str, moment: datetime) -> int:
    """`time_us` of a moment that a client names at `pointer`. Raises invalid_field for one that no reply could show."""
    us = time_us(moment)
    if not TIME_MIN_US <= us <= TIME_MAX_US:
        raise invalid_field(pointer, "a time from 1970 to 9999 (UTC) is expected")
    return us
