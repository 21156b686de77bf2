"""How fast something goes, as measured: right within a factor of two while it goes, and not believed when it stops."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from jobsvc.engine.rates import FOLD_S, SILENCE, Bucket, Rate, time_for


def measured(clock: Clock, per_s: float, burst: int, seconds: float, rate: Rate | None = None) -> Rate:
    """So many a second, in bursts, for so long."""
    rate = Rate(clock.seconds) if rate is None else rate
    until = clock.seconds() + seconds
    while clock.seconds() < until:
        clock.advance(burst / per_s)
        rate.add(burst)
    return rate


@pytest.mark.parametrize(
    ("per_s", "burst"),
    [(0.05, 1), (0.5, 1), (3, 1), (100, 1), (5000, 1), (2, 32), (30, 512), (100, 512), (20_000, 512)],
)
def test_a_steady_rate(per_s: float, burst: int) -> None:
    """One by one or in claims of hundreds, whenever one looks between two of them."""
    clock = Clock()
    gap_s = burst / per_s
    rate = measured(clock, per_s, burst, max(20, 20 * gap_s))
    for _ in range(4):
        assert per_s / 2 < rate.per_s() < per_s * 3, rate.per_s()
        clock.advance(gap_s / 4)


def test_nothing_is_no_rate() -> None:
    clock = Clock()
    rate = Rate(clock.seconds)
    assert (rate.per_s(), time_for(1, rate.per_s())) == (0.0, 300.0)


def test_a_change_of_pace_is_seen_within_seconds() -> None:
    """Faster or slower: what was minutes ago does not count while there is enough from the last seconds."""
    clock = Clock()
    rate = measured(clock, 100, 10, 600)
    measured(clock, 10, 2, 40, rate)
    assert 5 < rate.per_s() < 20
    measured(clock, 1000, 10, 40, rate)
    assert 500 < rate.per_s() < 2000


def test_after_an_hour_of_silence_the_first_seconds_count() -> None:
    clock = Clock()
    rate = measured(clock, 100, 10, 60)
    clock.advance(3600)
    measured(clock, 2, 1, 20, rate)
    assert 1 < rate.per_s() < 4


@pytest.mark.parametrize("burst", [1, 20, 300])
@pytest.mark.parametrize("per_s", [0.2, 5, 100, 3000])
def test_when_it_stops_the_rate_is_not_believed_for_long(per_s: float, burst: int) -> None:
    """After a silence in which three bursts were due, it is no more than that silence allows."""
    clock = Clock()
    rate = measured(clock, per_s, burst, 20)
    gathered = burst + per_s * 2 * FOLD_S  # bursts within a moment are one
    for silence_s in range(10, 600, 10):
        clock.advance(10)
        assert rate.per_s() <= SILENCE * gathered / silence_s


def test_a_bucket_fills_at_its_pace_and_no_further() -> None:
    """Full at first; what is taken comes back; nothing beyond its room."""
    clock = Clock()
    bucket = Bucket(2.0, 10.0, clock.seconds)
    bucket.take(10)
    assert (bucket.held(), bucket.wait_s(1), bucket.wait_s(10)) == (0.0, 0.5, 5.0)
    clock.advance(3)
    assert (bucket.held(), bucket.wait_s(6)) == (6.0, 0.0)
    clock.advance(100)
    assert bucket.held() == 10.0


@pytest.mark.parametrize(
    ("count", "per_s", "seconds"), [(1, 100, 1), (50, 10, 5), (10_000, 1, 300), (1, 0, 300), (0, 1, 1)]
)
def test_retry_after_is_within_bounds(count: int, per_s: float, seconds: float) -> None:
    assert time_for(count, per_s) == seconds
