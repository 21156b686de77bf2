"""F3: who asks: a bearer token compared in constant time by its SHA-256, or a ticket for one job.

What may be asked is judged here too, as far as the route alone tells; the rest is in `narrowing`. Must not read files
or wait for the store: `registry` has all tokens in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NoReturn

from jobsvc.http.challenges import Challenge, invalid_token, lacks, malformed
from jobsvc.http.grants import NOBODY
from jobsvc.http.guessing import WrongTokens
from jobsvc.http.registry import Registry
from jobsvc.http.request import Request
from jobsvc.http.tickets import Tickets
from jobsvc.model.access import Principal, Wanted
from jobsvc.model.errors import JobsvcError

START_RETRY_S: Final = 1
"""A start takes about as long as Python's imports in the workers."""
_SCHEME = b"bearer "
_TICKET = b"ticket="


class Gate:
    """Lets in who brings a good token or ticket.

    Args:
        open_paths: of the routes that need none. With a query they tell more (`/readyz?verbose`), and do.
    """

    def __init__(
        self,
        registry: Registry,
        tickets: Tickets,
        wrong: WrongTokens,
        now_us: Callable[[], int],
        open_paths: Iterable[bytes] = (),
    ) -> None:
        self._registry = registry
        self._find = registry.find
        self._tickets = tickets
        self._wrong = wrong
        self._now_us = now_us
        self._open_paths = frozenset(open_paths)

    def admit(self, request: Request) -> None:
        """Say who asks. Raises `unauthenticated`, `rate_limited` or `bad_query` unless the request may pass."""
        if request.path in self._open_paths and not request.query:
            return
        given = request.requestHeaders.getRawHeaders(b"authorization")
        ticket = _taken_ticket(request) if request.query and _TICKET in request.query else None
        if given is None:
            if ticket is None:
                raise Challenge("unauthenticated", "Send the token: Authorization: Bearer …")
            request.principal = self._by_ticket(request, ticket)
            return
        if ticket is not None:
            raise JobsvcError("bad_query", "ticket: send the token or a ticket, not both.")
        header = given[0]
        if len(given) != 1 or header[: len(_SCHEME)].lower() != _SCHEME:
            raise malformed("Authorization is expected once, as Bearer and the token.")
        name, _, secret = header[len(_SCHEME) :].strip().partition(b".")
        grant = self._find(name)
        if not compare_digest(sha256(secret).digest(), grant.digest) or grant is NOBODY:
            self._refuse_wrong(request)
        now = self._now_us()
        ended = grant.ended(now)
        if ended is not None:
            raise invalid_token(f"This token has {_ENDED[ended]}.")
        grant.used_at = now
        if not grant.noted:
            self._registry.note(grant)
        request.principal = grant.principal

    def check_scope(self, request: Request, scope: Wanted | None) -> None:
        """Raise `forbidden` unless the token has this scope. None: no token is needed."""
        if scope is None:
            return
        principal = request.principal
        if principal is None or (scope != "any" and not principal.may(scope)):
            if principal is not None and principal.job is not None:
                raise Challenge(
                    "forbidden", "A ticket lets look at its job; to change anything, send a token."
                )
            raise lacks(scope)

    def _by_ticket(self, request: Request, text: bytes) -> Principal:
        ticket = self._tickets.read(text)
        if ticket is None:
            self._refuse_wrong(
                request, "This ticket is not valid here; POST /v1/jobs/{id}/share makes another."
            )
        now = self._now_us()
        grant = self._registry.get(ticket.token)
        if now >= ticket.expires_at:
            raise invalid_token("This ticket has expired.")
        if grant is None or grant.ended(now):
            raise invalid_token("The token that made this ticket is no longer good.")
        return Principal(
            token=grant.token.id, tenant=grant.token.tenant, scopes=frozenset(("read",)), job=ticket.job
        )

    def _refuse_wrong(self, request: Request, words: str = "This token is not valid here.") -> NoReturn:
        """Nobody's token, or the wrong secret: not told which."""
        if not self._registry.loaded:
            raise JobsvcError("overloaded", "The daemon is starting.", retry_after_s=START_RETRY_S)
        wait_s = self._wrong.count(request.client_address)
        if wait_s is not None:
            many = "Too many wrong tokens came from this address; a good one is let in at once."
            raise JobsvcError("rate_limited", many, retry_after_s=wait_s)
        raise invalid_token(words)


_ENDED: Final = {"revoked": "been revoked", "expired": "expired"}


def _taken_ticket(request: Request) -> bytes | None:
    """The ticket in the query, taken out of it: what reads or logs the address behind this does not see it."""
    pairs = request.query.split(b"&")
    tickets = [pair[len(_TICKET) :] for pair in pairs if pair.startswith(_TICKET)]
    if not tickets:
        return None
    request.query = b"&".join(pair for pair in pairs if not pair.startswith(_TICKET))
    request.uri = request.path + b"?" * bool(request.query) + request.query
    if len(tickets) > 1:
        raise JobsvcError("bad_query", "ticket is given twice.")
    return tickets[0]
