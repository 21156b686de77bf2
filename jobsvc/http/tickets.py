"""F3: share tickets: signed texts that let whoever has one follow one job for a while, and nothing else.

For browsers: their EventSource cannot send a header, so the ticket travels in the query, where no token ever may.
Nothing is stored. The key is made at every start: a ticket lives for an hour at most, and a restart ends it.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

TICKET_S: Final = 600.0
TICKET_MAX_S: Final = 3_600.0
"""A ticket stands in URLs, which are copied and kept: it must soon be worth nothing."""
TICKET_MAX_CHARS: Final = 512
KEY_BYTES: Final = 32
_MAC_BYTES: Final = 32
_JOB_BYTES: Final = 16
_TIME_BYTES: Final = 8


class Ticket(NamedTuple):
    """What a ticket says: which job, until when (microseconds), and by whose token: it ends with that one."""

    job: bytes
    expires_at: int
    token: str


class Tickets:
    """Makes and reads tickets.

    Args:
        random_bytes: `random_bytes(n)`: n secret random bytes.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._key = random_bytes(KEY_BYTES)

    def write(self, ticket: Ticket) -> str:
        """The text of it, of letters that a query takes as they are."""
        body = ticket.job + ticket.expires_at.to_bytes(_TIME_BYTES) + ticket.token.encode()
        return urlsafe_b64encode(self._mac(body) + body).rstrip(b"=").decode()

    def read(self, text: bytes) -> Ticket | None:
        """What it says; None unless it was made here, in this run. Whether it has expired is for the reader to see."""
        if len(text) > TICKET_MAX_CHARS:
            return None
        try:
            raw = b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return None
        job, rest = body[:_JOB_BYTES], body[_JOB_BYTES:]
        return Ticket(job, int.from_bytes(rest[:_TIME_BYTES]), rest[_TIME_BYTES:].decode())

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, sha256)
