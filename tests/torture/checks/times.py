"""When a daemon was ready, and which life it was."""

from __future__ import annotations

from bisect import bisect_right

from tests.torture.evidence import Evidence


def away_s(evidence: Evidence, since: int, until: int | None = None) -> float:
    """How long no daemon was ready between two moments; without the second, to the end of the run."""
    away_ns, gone = 0, None
    for life in evidence.lives:
        if gone is not None and life.ready is not None:
            back = life.ready if until is None else min(life.ready, until)
            away_ns += max(0, back - max(gone, since))
            gone = None
        if life.ended is not None and gone is None:
            # Told to stop, it takes nothing new.
            gone = life.ended if life.asked is None else life.asked
    return away_ns / 1e9


class Lives:
    """The lives that became ready, to find the one of a moment."""

    def __init__(self, evidence: Evidence) -> None:
        ready = [(life.ready, place) for place, life in enumerate(evidence.lives) if life.ready is not None]
        self._moments = [moment for moment, _ in ready]
        self._places = [place for _, place in ready]
        self.place_of = {life.name: place for place, life in enumerate(evidence.lives)}

    def at(self, moment: int) -> int:
        """The place of the newest one that was ready by then; -1 before the first."""
        at = bisect_right(self._moments, moment) - 1
        return -1 if at < 0 else self._places[at]
