"""F2: tokens in the database: who may ask. Runs on the writer's connection, but for the read, which `reads` runs.

There are few, and the registry of the edge knows them all: nothing here is on the way of a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from jobsvc.model.access import Scope
from jobsvc.model.tokens import Token
from jobsvc.store.session import Session


class _TokenRow(msgspec.Struct, array_like=True):
    """One row of `tokens` as `TOKENS` gives it."""

    id: str
    name: str
    hash: str
    tenant: str
    scopes: tuple[Scope, ...]
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    used_at: int | None


_decode_rows = msgspec.json.Decoder(list[_TokenRow]).decode

PUT: Final = (
    "INSERT INTO tokens (id, name, hash, tenant, scopes, tasks, queues, created_at, expires_at, revoked_at)"
    " VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET"
    " expires_at=excluded.expires_at, revoked_at=coalesce(revoked_at, excluded.revoked_at)"
)
"""What a token may do never changes: who wants another one makes another one. A revocation is never taken back."""
TOUCH: Final = "UPDATE tokens SET used_at=max(coalesce(used_at, 0), ?) WHERE id=?"
"""Written once a minute at most; a clock that was set back takes nothing away."""
FORGET: Final = (
    "DELETE FROM tokens WHERE min(coalesce(revoked_at, expires_at), coalesce(expires_at, revoked_at)) < ?"
)
"""The first of its two ends counts; NULL, for a token without any end, is not less."""
TOKENS: Final = (
    "SELECT json_group_array(json_array(id, name, hex(hash), tenant, json(scopes), json(tasks), json(queues),"
    " created_at, expires_at, revoked_at, used_at)) FROM (SELECT * FROM tokens ORDER BY created_at, id)"
)
"""All of them: the registry in memory is made of it at the start."""


def put(session: Session, tokens: Sequence[Token]) -> None:
    """See `Store.put_tokens`."""
    for token in tokens:
        session.db.execute(
            PUT,
            (
                token.id,
                token.name,
                token.hash,
                token.tenant,
                *(msgspec.json.encode(names).decode() for names in (token.scopes, token.tasks, token.queues)),
                token.created_at,
                token.expires_at,
                token.revoked_at,
            ),
        )


def touch(session: Session, used: Mapping[str, int]) -> None:
    """See `Store.touch_tokens`."""
    for token_id, at in used.items():
        session.db.execute(TOUCH, (at, token_id))


def forget(session: Session, ended_before: int) -> int:
    """See `Store.forget_tokens`."""
    return session.db.execute(FORGET, (ended_before,)).rowcount


def tokens_of(text: str) -> list[Token]:
    """The tokens in an answer of `TOKENS`."""
    return [_token(row) for row in _decode_rows(text)]


def _token(row: _TokenRow) -> Token:
    return Token(
        id=row.id, name=row.name, hash=bytes.fromhex(row.hash), tenant=row.tenant, scopes=row.scopes,
        tasks=row.tasks, queues=row.queues, created_at=row.created_at, expires_at=row.expires_at,
        revoked_at=row.revoked_at, used_at=row.used_at,
    )  # fmt: skip
