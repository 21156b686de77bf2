"""F3: who sends wrong tokens: after some, each further one is answered with 429, at the price of one look into a table.

Good tokens of the same address are never held up: nobody can lock out a neighbour, or those behind the same proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address
from typing import Final

from twisted.internet.interfaces import IReactorTime

WRONG_MAX: Final = 20
"""Wrong tokens of one address within `WINDOW_S` that are told to be wrong: enough for a
person who mistypes, and for a few programs with an old token."""
WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 4_096
"""Addresses remembered, about 200 bytes each; beyond that the one that was quiet for longest is forgotten."""
_V6_NETWORK_BYTES: Final = 8
"""A /64: what one customer gets, who then has 2^64 addresses to come from."""


class WrongTokens:
    """See the module.

    Args:
        clock: its seconds are steady.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._seen: OrderedDict[bytes | str, tuple[int, float]] = OrderedDict()  # (how many, since when)

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, host: str) -> float | None:
        """One more from there. None while that is bearable, else after how many seconds it will be again.

        Args:
            host: an IP address, or `unix`.
        """
        place = place_of(host)
        now = self._clock.seconds()
        wrong, since = self._seen.pop(place, (0, now))
        if now - since >= WINDOW_S:
            wrong, since = 0, now
        self._seen[place] = (min(wrong + 1, WRONG_MAX + 1), since)
        if len(self._seen) > ADDRESSES_MAX:
            self._seen.popitem(last=False)
        return None if wrong < WRONG_MAX else since + WINDOW_S - now


def place_of(host: str) -> bytes | str:
    """Whom an address stands for: itself, for IPv6 its /64, for a Unix socket everyone who may open it."""
    if ":" not in host:
        return host
    try:
        number = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = number.ipv4_mapped
    return number.packed[:_V6_NETWORK_BYTES] if mapped is None else str(mapped)
