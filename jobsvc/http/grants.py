"""F3: one token as requests meet it. Holds what its registry and the gate know of it; decides nothing."""

from __future__ import annotations

from typing import Final, Literal

from jobsvc.model.access import Principal
from jobsvc.model.tokens import Token


class Grant:
    """One token as requests meet it.

    Attributes:
        digest: SHA-256 of its secret.
        first: it is, or was, the one of the data directory.
        replaced: another has taken its place, though it may be good for a while.
        told: that it has ended was told to whoever listens.
        used_at: when it last let a request in.
        noted: `used_at` need not be told to the registry: it will be written, or never is.
    """

    __slots__ = ("digest", "first", "noted", "principal", "replaced", "token", "told", "used_at")

    def __init__(self, token: Token, *, first: bool = False) -> None:
        self.token = token
        self.digest = token.hash
        self.principal: Principal = token.principal
        self.first = first
        self.replaced = False
        self.told = False
        self.used_at = token.used_at
        self.noted = first

    def ended(self, now: int) -> Literal["revoked", "expired"] | None:
        """`revoked` or `expired`, None while it is good."""
        token = self.token
        if token.revoked_at is not None:
            return "revoked"
        return "expired" if token.expires_at is not None and token.expires_at <= now else None


NOBODY: Final = Grant(Token(id="", name="", hash=bytes(32), scopes=(), created_at=0))
"""Stands for an unknown token, so that it is compared like a known one and takes as long. No secret has its digest, and
who brings one is refused all the same."""
