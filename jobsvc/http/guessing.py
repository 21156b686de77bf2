"""F3: who sends wrong tokens: after some, each further one is answered with 429, at the price of one look into a table.

Good tokens of the same address are never held up: nobody can lock out a neighbour, or those behind the same proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.interfaces import IReactorTime

from jobsvc.http.addresses import host_of, site_of

WRONG_MAX: Final = 20
"""Wrong tokens of one address within `WINDOW_S` that are told to be wrong: enough for a
person who mistypes, and for a few programs with an old token."""
WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 4_096
"""Addresses remembered, about 200 bytes each; beyond that the one that was quiet for longest is forgotten."""


class WrongTokens:
    """See the module.

    Args:
        clock: its seconds are steady.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  # (how many, since when)

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, source: str) -> float | None:
        """One more of there. None while that is bearable, else after how many seconds it will be again.

        Args:
            source: `Request.client_address`. A Unix socket is one place, for everyone who may open it.
        """
        host = host_of(source)
        place = source if host is None else site_of(host)
        now = self._clock.seconds()
        wrong, since = self._seen.pop(place, (0, now))
        if now - since >= WINDOW_S:
            wrong, since = 0, now
        self._seen[place] = (min(wrong + 1, WRONG_MAX + 1), since)
        if len(self._seen) > ADDRESSES_MAX:
            self._seen.popitem(last=False)
        return None if wrong < WRONG_MAX else since + WINDOW_S - now
