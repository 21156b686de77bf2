"""A loop that only computes, and how many rounds of it take a given time. No jobsvc: it is also the bare limit."""

from __future__ import annotations

from time import perf_counter

CALIBRATION_ROUNDS = 200_000
"""About 10 ms."""
TRIES = 7
"""The fastest counts: whatever disturbs makes it slower."""


def burn_loops(rounds: int) -> int:
    """Compute for `rounds` rounds; about 50 ns each."""
    value = 1
    for _ in range(rounds):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return value


def rounds_for(seconds: float) -> int:
    """How many rounds take `seconds` on this machine when nothing else runs."""
    best_s = min(_timed(CALIBRATION_ROUNDS) for _ in range(TRIES))
    return max(1, round(CALIBRATION_ROUNDS * seconds / best_s))


def _timed(rounds: int) -> float:
    began = perf_counter()
    burn_loops(rounds)
    return perf_counter() - began
