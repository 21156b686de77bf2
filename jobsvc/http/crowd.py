"""F3: how many connections there may be: in all, and of one address before it has shown that it may be here.

A flood of connections that ask nothing must not keep out those that do: when all places are taken, the oldest one that
has not yet sent a full, authorised request gives way.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ISSLTransport
from twisted.python.failure import Failure

from jobsvc.http.addresses import host_of, site_of
from jobsvc.http.limits import (
    CONNECTIONS_MAX,
    LINGER_S,
    OPEN_FILES_SHARE,
    REFUSALS_MAX,
    UNPROVEN_PER_ADDRESS_MAX,
)

if TYPE_CHECKING:
    from jobsvc.http.channel import Channel


def connections_allowed() -> int:
    """How many connections this process may have: the limit, or its share of the open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, int(soft * OPEN_FILES_SHARE))


def counted_address(address: IAddress | None) -> str | None:
    """Under which name a client's address is counted; None for loopback, Unix sockets and what has no address."""
    host = host_of(str(getattr(address, "host", "")))
    return None if host is None or host.is_loopback else site_of(host)


class Crowd:
    """Who is here and has not yet proven to be welcome.

    Args:
        places: connections there may be at once.

    Attributes:
        refused: connections turned away so far, by the limit they met.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.refused = {"total": 0, "address": 0, "gave_way": 0}
        self._unproven: dict[Channel, None] = {}  # the oldest first
        self._of_address: dict[str, int] = {}

    def room_for(self, address: str | None) -> bool:
        """Whether one more connection of this address may come in."""
        if address is None or self._of_address.get(address, 0) < UNPROVEN_PER_ADDRESS_MAX:
            return True
        self.refused["address"] += 1
        return False

    def gives_way(self) -> Channel | None:
        """All places are taken: who has to go. None when everybody here has proven itself."""
        oldest = next(iter(self._unproven), None)
        self.refused["total" if oldest is None else "gave_way"] += 1
        return oldest

    def came(self, channel: Channel) -> None:
        """One more."""
        self._unproven[channel] = None
        if channel.address is not None:
            self._of_address[channel.address] = self._of_address.get(channel.address, 0) + 1

    def proved(self, channel: Channel) -> None:
        """It has sent a full, authorised request, or it has left."""
        if channel not in self._unproven:
            return
        del self._unproven[channel]
        if channel.address is not None:
            left = self._of_address[channel.address] - 1
            if left:
                self._of_address[channel.address] = left
            else:
                del self._of_address[channel.address]


class Refusal(protocol.Protocol):
    """A connection that is over a limit: told so where that is cheap, else closed.

    Args:
        reply: all that is said; empty = nothing.
        others: those of its kind.
    """

    transport: Any

    def __init__(self, reply: bytes, clock: IReactorTime, others: set[Refusal]) -> None:
        self._reply = reply
        self._clock = clock
        self._others = others
        self._ending: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Say it, and leave time for it to arrive."""
        if not self._reply or ISSLTransport.providedBy(self.transport):  # a handshake is not cheap
            self.transport.abortConnection()
            return
        self._others.add(self)
        self.transport.write(self._reply)
        self.transport.loseWriteConnection()
        self._ending = self._clock.callLater(LINGER_S, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """Thrown away: unread bytes would turn the reply into a reset."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """It is gone."""
        self._others.discard(self)
        if self._ending is not None and self._ending.active():
            self._ending.cancel()


def may_be_told(refusals: set[Refusal]) -> bool:
    """Whether so few are being told that one more is cheap."""
    return len(refusals) < REFUSALS_MAX
