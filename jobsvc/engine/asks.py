"""F2: waiting for many jobs at once. Clients that ask for the same ones share one wait and one answer.

Such a wait costs the reactor what changes: the bus tells it of ends, the store is asked once which of them are done
already, and rows are read for the answer only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from jobsvc.engine.board import Board
from jobsvc.engine.bus import Bus, Follow
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Job
from jobsvc.ports import Store
from jobsvc.runtime.waiting import Waiters, hand_out, within

T = TypeVar("T")

WAKE_AT_ONCE = 32
"""Clients of one wait that one turn of the reactor answers: each reply costs 0.2 ms, others come in between."""

ASKED_IDS_MAX = 400_000
"""Ids that the waits for many of one tenant name together, equal waits counted once: a thousand of the longest kind.
Each id costs about 200 bytes while it is waited for, and each end of a job looks at all who wait for it."""
FULL_RETRY_S = 5.0
"""Retry-After beyond it: waits last for seconds, and clients of equal waits take no room."""


class _Ask:
    """One wait, for all who asked the same."""

    __slots__ = ("answer", "any", "follower", "key", "looking", "over", "size", "tenant", "waiting")

    def __init__(
        self, key: Hashable, tenant: str, size: int, answer: Callable[[], Awaitable[Any]], *, any_: bool
    ) -> None:
        self.key = key
        self.tenant = tenant
        self.size = size
        self.answer = answer
        self.any = any_
        self.over = False
        self.waiting: Waiters[Any] = Waiters()
        self.follower: Follow
        self.looking: Deferred[None]


class Asks:
    """See the module."""

    def __init__(self, board: Board, store: Store, bus: Bus, clock: IReactorTime) -> None:
        self._board = board
        self._store = store
        self._bus = bus
        self._clock = clock
        self._asks: dict[Hashable, _Ask] = {}
        self._asked_ids: Counter[str] = Counter()  # by tenant

    async def wait(
        self,
        ids: Sequence[bytes],
        tenant: str,
        wait_s: float,
        until: str,
        answer: Callable[[], Awaitable[T]],
        key: Hashable,
    ) -> T:
        """See `Engine.wait_many`."""
        if wait_s <= 0:
            return await answer()
        key = (key, tenant, until, *ids)
        ask = self._asks.get(key)
        if ask is None:
            self._check_room(tenant, len(ids))
            ask = self._asks[key] = _Ask(key, tenant, len(ids), answer, any_=until == "any")
            self._asked_ids[tenant] += ask.size
            waiter = ask.waiting.wait()
            self._begin(ask, ids, tenant)
        else:
            waiter = ask.waiting.wait()
        try:
            got = await within(self._clock, wait_s, waiter)
        finally:
            if not ask.waiting and not ask.over:
                self._close(ask)
                ask.looking.cancel()
        return await answer() if got is None else got

    def _check_room(self, tenant: str, size: int) -> None:
        have = self._asked_ids.get(tenant, 0)
        if have + size > ASKED_IDS_MAX:
            raise JobsvcError(
                "rate_limited",
                f"Waits of the tenant {tenant!r} for many jobs name {have:,} ids, and {ASKED_IDS_MAX:,} is the limit. "
                "Wait for fewer, wait for the same ones, or follow the jobs.",
                retry_after_s=FULL_RETRY_S,
            )

    def _begin(self, ask: _Ask, ids: Sequence[bytes], tenant: str) -> None:
        """Listen first, then look: what is committed in between is not missed."""

        def ended(_: Sequence[Job]) -> None:
            if ask.any or not ask.follower.left:
                self._finish(ask)

        ask.follower = self._bus.follow(ended)
        ask.follower.add(ids)
        ask.looking = Deferred.fromCoroutine(self._look(ask, ids, tenant))
        ask.looking.addErrback(self._failed, ask)

    async def _look(self, ask: _Ask, ids: Sequence[bytes], tenant: str) -> None:
        """Leave out what is done already, or not there; what is being run is neither."""
        active = self._board.active
        resting = [i for i in ids if i not in active or active[i].job.tenant != tenant]
        done = await self._store.done(resting, tenant) if resting else {}
        for job_id in resting:
            if done.get(job_id, True):
                ask.follower.drop(job_id)
        if not ask.follower.left or (ask.any and any(done.values())):
            self._finish(ask)

    def _finish(self, ask: _Ask) -> None:
        """It is over: one answer is made, and handed to all."""
        if not ask.over:
            self._close(ask)
            Deferred.fromCoroutine(self._answer(ask)).addErrback(self._failed, ask)

    async def _answer(self, ask: _Ask) -> None:
        await hand_out(self._clock, ask.waiting, await ask.answer(), WAKE_AT_ONCE)

    def _close(self, ask: _Ask) -> None:
        ask.over = True
        ask.follower.close()
        del self._asks[ask.key]
        self._asked_ids[ask.tenant] -= ask.size
        if not self._asked_ids[ask.tenant]:
            del self._asked_ids[ask.tenant]

    def _failed(self, failure: Failure, ask: _Ask) -> None:
        """Those who wait are told."""
        if failure.check(CancelledError):
            return
        if not ask.over:
            self._close(ask)
        ask.waiting.fire_some(failure, len(ask.waiting))
