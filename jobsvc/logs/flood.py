"""F3: what one place in the code says again and again is cut off: whoever makes it speak must not fill the disk."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

ALIKE_MAX: Final = 100
WINDOW_S: Final = 10.0
"""So many lines of one place pass in so long: enough to see what goes on, and 1 MB in 10 minutes."""
PLACES_MAX: Final = 1_000
"""Places that are remembered; our own code has some hundred."""


class Flood:
    """Counts lines by the place they come from.

    Args:
        monotonic: measures the windows.

    Attributes:
        held_back: lines that did not pass.
    """

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        self.held_back = 0
        self._monotonic = monotonic
        self._places: dict[tuple[str, str], tuple[float, int]] = {}  # → (begin of its window, lines in it)

    def passes(self, place: tuple[str, str]) -> int | None:
        """Whether one more may pass: None when not, else how many like it were held back just before."""
        now_s = self._monotonic()
        began_s, count = self._places.get(place, (now_s, 0))
        missed = 0
        if now_s - began_s >= WINDOW_S:
            missed = max(0, count - ALIKE_MAX)
            began_s, count = now_s, 0
        if count == 0 and len(self._places) >= PLACES_MAX and place not in self._places:
            self._places.clear()
        self._places[place] = (began_s, count + 1)
        if count >= ALIKE_MAX:
            self.held_back += 1
            return None
        return missed
