"""How long a slot waits, and what a silent worker is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from jobsvc.model.limits import PING_S, STALL_S
from jobsvc.pool.backoff import PROVEN_S, RESTART_BASE_S, RESTART_MAX_S, Backoff
from jobsvc.pool.pulse import Pulse


def most(low: float, high: float) -> float:
    return high


def test_the_first_restart_is_at_once_the_others_ever_later_up_to_a_cap() -> None:
    backoff = Backoff(most)
    waits = [backoff.next_s(0.1, blameless=False) for _ in range(12)]
    assert waits[:4] == [0.0, RESTART_BASE_S, 2 * RESTART_BASE_S, 4 * RESTART_BASE_S]
    assert waits == sorted(waits)
    assert waits[-1] == RESTART_MAX_S
    assert [backoff.next_s(0.1, blameless=False) for _ in range(2000)][-1] == RESTART_MAX_S


def test_jitter_never_waits_less_than_half() -> None:
    backoff = Backoff(lambda low, high: low)
    backoff.next_s(0, blameless=False)
    assert backoff.next_s(0, blameless=False) == RESTART_BASE_S / 2


def test_a_worker_that_has_lived_starts_the_count_afresh() -> None:
    backoff = Backoff(most)
    for _ in range(5):
        backoff.next_s(0.1, blameless=False)
    assert backoff.next_s(PROVEN_S, blameless=False) == 0.0
    assert backoff.next_s(0.1, blameless=False) == RESTART_BASE_S


def test_a_worker_that_died_of_its_attempt_is_replaced_at_once() -> None:
    backoff = Backoff(most)
    assert [backoff.next_s(0.1, blameless=True) for _ in range(50)] == [0.0] * 50


class Patient:
    """A Pulse on a Clock, whose monotonic time may be moved apart from its wake-ups."""

    def __init__(self, *, answers: bool) -> None:
        self.clock = Clock()
        self.asked: list[int] = []
        self.stalls: list[float] = []
        self.answers = answers
        monotonic: Callable[[], float] = self.clock.seconds
        self.pulse = Pulse(self.clock, monotonic, self._ask, lambda: self.stalls.append(self.clock.seconds()))

    def _ask(self, n: int) -> None:
        self.asked.append(n)
        if self.answers:
            self.clock.callLater(0.1, self.pulse.heard)

    def live(self, seconds: float) -> None:
        self.clock.pump([PING_S / 2] * int(seconds / (PING_S / 2)))


def test_a_worker_that_answers_lives() -> None:
    patient = Patient(answers=True)
    patient.pulse.start()
    patient.live(60)
    assert patient.stalls == []
    assert len(patient.asked) == 61
    patient.pulse.stop()
    patient.live(1)
    assert patient.clock.getDelayedCalls() == []


def test_silence_is_told_once_after_the_limit() -> None:
    patient = Patient(answers=False)
    patient.pulse.start()
    patient.live(60)
    assert patient.stalls == [STALL_S]
    assert patient.clock.getDelayedCalls() == []


def test_a_worker_that_stops_answering_has_the_whole_limit_from_its_last_answer() -> None:
    patient = Patient(answers=True)
    patient.pulse.start()
    patient.live(20)
    patient.answers = False
    patient.live(60)
    assert patient.stalls == pytest.approx([20 + STALL_S], abs=2 * PING_S)


def test_when_the_daemon_itself_slept_the_worker_is_not_blamed() -> None:
    patient = Patient(answers=True)
    patient.pulse.start()
    patient.live(5)
    patient.clock.advance(300)  # one step: our own timer comes 300 s late
    patient.live(30)
    assert patient.stalls == []
    patient.pulse.stop()


def test_a_stopped_pulse_asks_no_more() -> None:
    patient = Patient(answers=False)
    patient.pulse.start()
    patient.live(3)
    patient.pulse.stop()
    patient.live(60)
    assert patient.stalls == []
    assert len(patient.asked) == 4
    assert patient.clock.getDelayedCalls() == []
