"""The heartbeat of a worker on a clock: silence is told once; the daemon's own silence is not the worker's."""

from __future__ import annotations

from twisted.internet.task import Clock

from jobsvc.model.limits import PING_S, STALL_S
from jobsvc.pool.pulse import NAP_S, Pulse


class Patient:
    """A worker that answers while `well`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.well = True
        self.stalls = 0
        self.pulse = Pulse(self.clock, self.clock.seconds, self._asked, self._stalled)
        self.pulse.start()

    def _asked(self, n: int) -> None:
        if self.well:
            self.pulse.heard()

    def _stalled(self) -> None:
        self.stalls += 1


def test_silence_is_told_once_it_has_lasted() -> None:
    patient = Patient()
    patient.clock.pump([PING_S] * 30)
    patient.well = False
    patient.clock.pump([PING_S] * int(STALL_S / PING_S - 1))
    assert patient.stalls == 0
    patient.clock.pump([PING_S] * 2)
    assert patient.stalls == 1
    assert patient.clock.getDelayedCalls() == []


def test_a_daemon_that_was_held_up_blames_no_worker() -> None:
    """F66: after a stall of our own, or a sleep of the machine, the worker has its whole time to answer."""
    patient = Patient()
    patient.clock.pump([PING_S] * 3)
    patient.well = False
    patient.clock.advance(10 * STALL_S)
    assert patient.stalls == 0
    patient.well = True
    patient.clock.pump([PING_S] * int(3 * STALL_S))
    assert patient.stalls == 0
    patient.pulse.stop()


def test_a_worker_that_is_silent_after_our_own_stall_is_told_of_all_the_same() -> None:
    patient = Patient()
    patient.well = False
    patient.clock.advance(NAP_S)
    patient.clock.pump([PING_S] * int(STALL_S / PING_S + 1))
    assert patient.stalls == 1
