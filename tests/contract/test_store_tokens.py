"""Tokens in a store: kept as they were put, ended for good, touched, forgotten; the same in memory and on a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from jobsvc.model.tokens import Token
from jobsvc.store.threaded import ThreadedStore
from tests.contract.store_harness import NOW, Held, PumpedReactor


def token(token_id: str, **fields: object) -> Token:
    """A token as the registry makes one."""
    made = Token(
        id=token_id,
        name=f"the token {token_id} 'quoted' ünïcode",
        hash=bytes(range(32)),
        tenant="acme",
        scopes=("read", "submit"),
        tasks=("echo", "a.b-c"),
        queues=("fast",),
        created_at=NOW,
    )
    return msgspec.structs.replace(made, **fields)


def test_tokens_come_back_as_they_were_put(held: Held) -> None:
    """Oldest first, with every field."""
    plain = token("b", scopes=("admin",), tasks=(), queues=(), created_at=NOW - 1)
    limited = token("a", expires_at=NOW + 5)
    held(held.store.put_tokens([limited, plain]))
    assert held(held.store.tokens()) == [plain, limited]


def test_only_the_end_of_a_known_token_changes(held: Held) -> None:
    """Not what it may do, nor its secret; and a revocation is never taken back."""
    old = token("a")
    held(held.store.put_tokens([old]))
    held(
        held.store.put_tokens(
            [token("a", name="x", hash=bytes(32), tenant="x", scopes=("admin",), expires_at=7)]
        )
    )
    assert held(held.store.tokens()) == [token("a", expires_at=7)]
    held(held.store.put_tokens([token("a", revoked_at=NOW)]))
    held(held.store.put_tokens([token("a", revoked_at=None)]))
    held(held.store.put_tokens([token("a", revoked_at=NOW + 9)]))
    assert held(held.store.tokens()) == [token("a", revoked_at=NOW)]


def test_the_last_use_never_goes_back(held: Held) -> None:
    """Of tokens that are there; others are passed over. Putting one again leaves it."""
    held(held.store.put_tokens([token("a"), token("b")]))
    held(held.store.touch_tokens({"a": NOW + 5, "nobody": NOW}))
    held(held.store.touch_tokens({"a": NOW + 3}))
    held(held.store.put_tokens([token("a", revoked_at=NOW + 6)]))
    assert [row.used_at for row in held(held.store.tokens())] == [NOW + 5, None]


def test_those_that_ended_long_ago_are_forgotten(held: Held) -> None:
    """By the earlier of their two ends; those without an end stay."""
    held(
        held.store.put_tokens(
            [
                token("open"),
                token("revoked", revoked_at=NOW - 1),
                token("expired", expires_at=NOW - 1),
                token("both", expires_at=NOW + 9, revoked_at=NOW - 1),
                token("late", expires_at=NOW, revoked_at=NOW + 1),
            ]
        )
    )
    assert held(held.store.forget_tokens(NOW)) == 3
    assert [row.id for row in held(held.store.tokens())] == ["late", "open"]


def test_tokens_survive_the_store(tmp_path: Path) -> None:
    """A daemon that starts again knows them, those that were revoked too."""
    rows = [token("a"), token("b", revoked_at=NOW)]
    for first in (True, False):
        reactor = PumpedReactor()
        store = ThreadedStore(str(tmp_path / "jobs.db"), "process", reactor.provided, lambda _: None)
        held = Held(store, reactor)
        held(store.open())
        if first:
            held(store.put_tokens(rows))
        else:
            assert held(store.tokens()) == rows
        held(store.close())
