"""F0: who asks, and what that one may do. Scopes, the principal of a request; knows no HTTP and no secrets."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

Scope = Literal["read", "submit", "operate", "admin"]
"""`read` looks; `submit` adds jobs and gets what they give; `operate` changes jobs and the daemon; `admin` may all of
it, and gives out tokens."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

Wanted = Scope | Literal["any"]
"""What is asked of a token: a scope, or only that it is good."""

DEFAULT_TENANT: Final = "default"
"""Whose jobs they are while nobody has set up tenants; its tokens may also do what concerns the whole daemon."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is behind a request.

    Attributes:
        token: public id of the token; never its secret.
        tenant: whose jobs it sees and makes; nothing of another tenant exists for it.
        scopes: what it may do; `admin` stands for all.
        tasks: names of the tasks it is narrowed to; empty = all.
        queues: names of the queues it is narrowed to; empty = all.
        job: id of the only job it may follow; None = not narrowed to one.
    """

    token: str
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = frozenset(("admin",))
    tasks: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    job: bytes | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def narrowed(self) -> bool:
        """Whether it sees less than all jobs of its tenant."""
        return bool(self.tasks or self.queues or self.job)

    def covers(self, task: str, queue: str) -> bool:
        """Whether jobs of this task in this queue are within what it is narrowed to."""
        return (not self.tasks or task in self.tasks) and (not self.queues or queue in self.queues)
