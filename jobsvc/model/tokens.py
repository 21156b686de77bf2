"""F0: bearer tokens as values: how their text is made and taken apart, and what is stored of one. No clock, no HTTP."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from jobsvc.model.access import DEFAULT_TENANT, Principal, Scope

TOKEN_PREFIX: Final = "jobsvc_"  # noqa: S105 - the public beginning of every token
"""So that a token that was pasted somewhere is known for what it is, by people and by scanners of secrets."""
TOKEN_ID_BYTES: Final = 6
"""Public; that two tokens get the same is looked for when one is made."""
TOKEN_SECRET_BYTES: Final = 32
"""256 bits: not to be guessed, so its SHA-256 needs no slow hash."""
FIRST_TOKEN_NAME: Final = "first"  # noqa: S105 - a name
"""Name of the token that the first start wrote to the data directory; no other token may have it."""


class Minted(NamedTuple):
    """A token just made. `text` holds the secret and is shown once; `digest` is what is kept."""

    id: str
    text: str
    digest: bytes


class Token(msgspec.Struct, kw_only=True):
    """What is stored of a token. Times in microseconds; None = never.

    Attributes:
        hash: SHA-256 of the secret; the secret itself is nowhere.
        scopes, tasks, queues, tenant: see `Principal`.
        expires_at: from then on it is refused.
        revoked_at: since then it is refused.
        used_at: when it last let a request in, give or take a minute.
    """

    id: str
    name: str
    hash: bytes
    tenant: str = DEFAULT_TENANT
    scopes: tuple[Scope, ...] = ("admin",)
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    used_at: int | None = None

    @property
    def principal(self) -> Principal:
        """Who brings it."""
        return Principal(
            token=self.id,
            tenant=self.tenant,
            scopes=frozenset(self.scopes),
            tasks=frozenset(self.tasks),
            queues=frozenset(self.queues),
        )


def mint(random_bytes: Callable[[int], bytes]) -> Minted:
    """A new token. `random_bytes(n)` gives n secret random bytes."""
    token_id = random_bytes(TOKEN_ID_BYTES).hex()
    secret = urlsafe_b64encode(random_bytes(TOKEN_SECRET_BYTES)).rstrip(b"=")
    return Minted(token_id, f"{TOKEN_PREFIX}{token_id}.{secret.decode()}", sha256(secret).digest())


def taken_apart(text: str) -> Minted | None:
    """Id and digest of a token's text; None when it is none."""
    token_id, _, secret = text.removeprefix(TOKEN_PREFIX).partition(".")
    if not text.startswith(TOKEN_PREFIX) or not token_id or not secret or not text.isascii():
        return None
    return Minted(token_id, text, sha256(secret.encode()).digest())
