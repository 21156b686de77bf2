"""Times: integers inside, RFC 3339 in UTC outside, exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.model.clock import time_text, time_us


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (1_795_000_000_123_456, "2026-11-18T11:06:40.123456Z"),
        (1_795_000_000_000_000, "2026-11-18T11:06:40.000000Z"),
    ],
)
def test_texts_have_six_places_always(us: int, text: str) -> None:
    assert time_text(us) == text


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_time_survives_the_trip(us: int) -> None:
    """To the last microsecond, to the end of the year 9999: no float on the way."""
    assert time_us(datetime.fromisoformat(time_text(us))) == us


def test_the_zone_does_not_matter() -> None:
    there = timezone(timedelta(hours=5, minutes=45))
    moment = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
    assert time_us(moment.astimezone(there)) == time_us(moment)
