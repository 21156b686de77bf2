"""F3: all tokens in memory, so that a request costs no look into the store; and how they are made and ended.

What is written is first stored, then believed: a token that was told to somebody survives a restart, and one that was
revoked is refused from that moment on. The token of the data directory is not in the store: its file is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from jobsvc.http.grants import NOBODY, Grant
from jobsvc.model.access import DEFAULT_TENANT
from jobsvc.model.errors import JobsvcError
from jobsvc.model.tokens import FIRST_TOKEN_NAME, TOKEN_PREFIX, Minted, Token, mint
from jobsvc.ports import Store
from jobsvc.runtime.waiting import Background

T = TypeVar("T")

TOKENS_MAX: Final = 10_000
"""Tokens kept, those that have ended included: all are in memory (1 KB each), and one reply lists them."""
TENANT_TOKENS_MAX: Final = 1_000
"""Good tokens of one tenant other than the operator's: no admin of a tenant can take the room of all."""
FLUSH_S: Final = 60.0
"""How long the time of a token's last use may wait for its write: it is for people who look which are still needed."""
LOOK_S: Final = 60.0
"""Longest sleep before it is looked again which tokens have expired; requests are refused to the microsecond."""
ENDED_KEEP_S: Final = 90 * 86_400.0
"""How long a token that has ended stays on the list: a quarter, so that an audit finds it."""


def _unheard(_token_id: str) -> None:
    """Nobody listens."""


class TokenFile(Protocol):
    """Where the token of the data directory lies. Both fail with `CannotWrite`."""

    made_at: int

    def write(self, text: str) -> Deferred[None]:
        """Put another token in its place, whole or not at all."""

    def remove(self) -> Deferred[None]:
        """Take it away; the next start makes one."""


class Registry:
    """See the module.

    Args:
        first: the token of the data directory.
        file: where that one lies; None: it cannot be changed while the daemon runs.
        clock: for the write of the last uses.
        now_us: the wall clock, by which tokens expire.
        random_bytes: `random_bytes(n)`: n secret random bytes.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        first: Minted,
        file: TokenFile | None,
        clock: IReactorTime,
        now_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.loaded = False
        """Whether the store's tokens are here; before that only the first one is known."""
        self.on_ended: Callable[[str], None] = _unheard
        """Told the id of a token that was revoked or has expired, after it has."""
        self._store = store
        self._file = file
        self._clock = clock
        self._now_us = now_us
        self._random_bytes = random_bytes
        self._background = Background()
        self._flushing: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._used: set[Grant] = set()
        self._grants: dict[bytes, Grant] = {}
        self._changing = DeferredLock()
        made_at = now_us() if file is None else file.made_at
        token = Token(id=first.id, name=FIRST_TOKEN_NAME, hash=first.digest, created_at=made_at)
        self._first = self._enter(Grant(token, first=True))

    # -- asked by requests

    def find(self, name: bytes) -> Grant:
        """The token of a name, `jobsvc_<id>`, good or not; for a name that nobody has `NOBODY`."""
        return self._grants.get(name, NOBODY)

    def note(self, grant: Grant) -> None:
        """It let a request in: write that down within `FLUSH_S`."""
        grant.noted = True
        self._used.add(grant)
        if self._flushing is None:
            self._flushing = self._clock.callLater(FLUSH_S, self._flush_now)

    # -- asked by those who manage them

    def all(self) -> list[Grant]:
        """Every token: that of the data directory, then the others, oldest first."""
        return sorted(self._grants.values(), key=lambda grant: (not grant.first, grant.token.created_at))

    def get(self, token_id: str) -> Grant | None:
        """The token of this id."""
        return self._grants.get(_name(token_id))

    def create(self, template: Token) -> Deferred[tuple[Grant, str]]:
        """A new token with the name, rights and expiry of `template`; its text, which is nowhere else.

        Raises:
            JobsvcError: conflict, when there are too many; disk_full.
        """
        return self._in_turn(lambda: self._create(template))

    def revoke(self, grant: Grant) -> Deferred[None]:
        """It is refused from now on. Doing it twice changes nothing. Raises disk_full."""
        return self._in_turn(lambda: self._revoke(grant))

    def rotate(self, grant: Grant, grace_s: float) -> Deferred[tuple[Grant, str]]:
        """A new token with the same name and rights in its place, and the text of it.

        Args:
            grace_s: how long the old one is good beside it; 0 = not at all.

        Raises:
            JobsvcError: conflict, when it has ended or was replaced already; disk_full.
        """
        return self._in_turn(lambda: self._rotate(grant, grace_s))

    def _in_turn(self, change: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """One change at a time: of two who replace the same token the second is told so."""
        return cast("Deferred[T]", self._changing.run(lambda: Deferred.fromCoroutine(change())))

    async def _create(self, template: Token) -> tuple[Grant, str]:
        await self._make_room(template.tenant)
        minted = self._mint()
        token = msgspec.structs.replace(
            template,
            id=minted.id,
            hash=minted.digest,
            created_at=self._now_us(),
            revoked_at=None,
            used_at=None,
        )
        await self._store.put_tokens([token])
        made = self._enter(Grant(token))
        self._look()
        return made, minted.text

    async def _revoke(self, grant: Grant) -> None:
        now = self._now_us()
        if grant.token.revoked_at is not None:
            return
        if not grant.first:
            await self._store.put_tokens([msgspec.structs.replace(grant.token, revoked_at=now)])
        elif grant is self._first:
            await self._needed_file().remove()
        self._end(grant, now)

    async def _rotate(self, grant: Grant, grace_s: float) -> tuple[Grant, str]:
        now = self._now_us()
        if grant.replaced or grant.ended(now):
            raise JobsvcError("conflict", f"The token {grant.token.id} has ended or was replaced already.")
        if not grant.first:
            await self._make_room(grant.token.tenant)
        minted = self._mint()
        new = msgspec.structs.replace(
            grant.token, id=minted.id, hash=minted.digest, created_at=now, used_at=None
        )
        old = _limited(grant.token, now, grace_s)
        if grant.first:
            await self._needed_file().write(minted.text)
        else:
            await self._store.put_tokens([old, new])
        made = self._enter(Grant(new, first=grant.first))
        if grant.first:
            self._first = made
        grant.replaced = True
        grant.token.expires_at = old.expires_at
        if old.revoked_at is not None:
            self._end(grant, now)
        self._look()
        return made, minted.text

    # -- life

    async def load(self) -> None:
        """Take in what the store has. Once it is open, before the daemon is ready."""
        await self._store.forget_tokens(self._now_us() - int(ENDED_KEEP_S * 1e6))
        for token in await self._store.tokens():
            self._grants.setdefault(_name(token.id), Grant(token))
        self.loaded = True
        self._look()

    async def close(self) -> None:
        """Write what is not written yet; no timer is left."""
        for timer in (self._flushing, self._looking):
            if timer is not None and timer.active():
                timer.cancel()
        self._flushing = self._looking = None
        await self._background.drained()
        try:
            await self._flush()
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - logged; the store must still be closed, or abandoned when it is broken
            self._log.failure("when tokens were last used was not written", action="not_written")

    def _look(self) -> None:
        """Tell of the tokens that have expired, and sleep until the next one does."""
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        self._looking = None
        now = self._now_us()
        expiring = [g for g in self._grants.values() if g.token.expires_at is not None and not g.told]
        for grant in expiring:
            if grant.ended(now):
                self._tell(grant)
        ends = [grant.token.expires_at or 0 for grant in expiring if not grant.told]
        if ends:
            # The timer is only a wake-up: by the wall clock, which may be set, tokens expire.
            self._looking = self._clock.callLater(min((min(ends) - now) / 1e6, LOOK_S), self._look)

    def _tell(self, grant: Grant) -> None:
        grant.told = True
        self.on_ended(grant.token.id)

    def _flush_now(self) -> None:
        self._flushing = None
        self._background.run("writing when tokens were last used", self._flush())

    async def _flush(self) -> None:
        grants, self._used = self._used, set()
        if not grants:
            return
        for grant in grants:
            grant.noted = False
        await self._store.touch_tokens({grant.token.id: grant.used_at or 0 for grant in grants})

    # -- inside

    def _mint(self) -> Minted:
        while True:
            minted = mint(self._random_bytes)
            if _name(minted.id) not in self._grants:
                return minted

    async def _make_room(self, tenant: str) -> None:
        now = self._now_us()
        if tenant != DEFAULT_TENANT:
            good = [g for g in self._grants.values() if g.token.tenant == tenant and g.ended(now) is None]
            if len(good) >= TENANT_TOKENS_MAX:
                raise JobsvcError(
                    "conflict",
                    f"The tenant {tenant!r} has {TENANT_TOKENS_MAX} tokens already: revoke some first.",
                )
        if len(self._grants) < TOKENS_MAX:
            return
        await self._store.forget_tokens(now)
        self._forget([grant for grant in self._grants.values() if grant.ended(now) and not grant.first])
        if len(self._grants) >= TOKENS_MAX:
            raise JobsvcError("conflict", f"There are {TOKENS_MAX} tokens already: revoke some first.")

    def _forget(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            del self._grants[_name(grant.token.id)]

    def _enter(self, grant: Grant) -> Grant:
        self._grants[_name(grant.token.id)] = grant
        return grant

    def _end(self, grant: Grant, now: int) -> None:
        grant.token.revoked_at = now
        if grant.first:
            # The store does not know it, so nothing would tell of it after a restart either.
            self._forget([grant])
        self._tell(grant)

    def _needed_file(self) -> TokenFile:
        if self._file is None:
            words = "The first token was given to the daemon from outside: change it there, and start again."
            raise JobsvcError("conflict", words)
        return self._file


def _name(token_id: str) -> bytes:
    return f"{TOKEN_PREFIX}{token_id}".encode()


def _limited(token: Token, now: int, grace_s: float) -> Token:
    """The same, ended now or after `grace_s`, unless it ends before anyway."""
    if grace_s <= 0:
        return msgspec.structs.replace(token, revoked_at=now)
    end = now + int(grace_s * 1e6)
    return msgspec.structs.replace(
        token, expires_at=end if token.expires_at is None else min(end, token.expires_at)
    )
