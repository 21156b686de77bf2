"""F0: times as this project writes them: integer microseconds inside, RFC 3339 text in UTC outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_text(us: int) -> str:
    """`YYYY-MM-DDTHH:MM:SS.ffffffZ` of microseconds since the epoch."""
    return (_EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_us(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
