"""F2: the writes of attempts on their way to the store, and where they wait while the disk is full.

What an attempt has said or done must not be lost because there is no space for it: its chunks and its end wait here, in
order, until there is. Meanwhile nothing new is claimed and submits are refused, a producer gets no credit, and of
progress only the newest is kept (by the intake), so what can gather is bounded by the attempts that run: a window for
each of their streams, an error of some KiB, and their results up to `HELD_RESULTS_MAX_BYTES`. Any other failure of the
store is fatal to the daemon, and the store says so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.model.errors import CannotWrite
from jobsvc.model.limits import MIB
from jobsvc.ports import Append, Settled, Step, Store

RETRY_S = 1.0
"""Pause before writes that found the disk full are tried again."""
FULL_S = 5.0
"""How long a refusal counts as news: after that a daemon that writes nothing says it is well, and the next one to try
will tell."""
HELD_RESULTS_MAX_BYTES = 256 * MIB
"""Results that wait for space: sixteen of the largest. One beyond that is given up, as if its worker had been lost."""

T = TypeVar("T")


class Batch:
    """One call of the store that waits: its answer is still owed."""

    __slots__ = ("answer", "rows", "serial")

    def __init__(self, rows: Sequence[Any], serial: int) -> None:
        self.rows = rows
        self.serial = serial  # calls fail in the order of their commits, but are written again in their own
        self.answer: Deferred[Any] = Deferred()


class AttemptWrites:
    """See the module. Each method answers once its rows are committed, with what `Store` says of them.

    Args:
        on_space: called when all that waited has been stored.
    """

    _log = Logger()

    def __init__(self, store: Store, clock: IReactorTime, on_space: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_space = on_space
        self._appends: list[Batch] = []
        self._ends: list[Batch] = []
        self._steps: list[Batch] = []
        self._serial = count()
        self._timer: IDelayedCall | None = None
        self._flushing = False
        self._full_at: float | None = None
        self.held_bytes = 0
        """Of results that wait."""
        self._refusal: CannotWrite | None = None  # what the store said when it last could not write

    # -- how it stands

    @property
    def holding(self) -> bool:
        """Whether anything waits for space."""
        return bool(self._flushing or self._appends or self._ends or self._steps)

    @property
    def held_back(self) -> CannotWrite | None:
        """Why what attempts have said waits here; None when nothing waits."""
        return self._refusal if self.holding else None

    @property
    def why(self) -> str:
        """What the store said when it last could not write."""
        return "" if self._refusal is None else str(self._refusal)

    @property
    def full(self) -> bool:
        """Whether the disk is full, as far as is known."""
        recent = self._full_at is not None and self._clock.seconds() - self._full_at < FULL_S
        return self.holding or recent

    def saw(self, failure: Failure) -> Failure:
        """Another write has failed, a submit or a claim: notes it when that was for want of space."""
        if is_full(failure):
            if not self.full:
                self._log.error(
                    "{why} Submits are refused and nothing new is claimed until it can be written again.",
                    why=str(failure.value),
                    action="disk_full",
                )
            self._noted(failure)
        return failure

    def _noted(self, failure: Failure) -> None:
        self._full_at = self._clock.seconds()
        assert isinstance(failure.value, CannotWrite)
        self._refusal = failure.value

    def close(self) -> None:
        """No timer of its own fires any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    # -- doors

    def append(self, rows: Sequence[Append]) -> Deferred[list[bool]]:
        """See `Store.append`."""
        return self._send(self._store.append, rows, partial(self._hold, self._appends))

    def step(self, rows: Sequence[Step]) -> Deferred[list[bool]]:
        """See `Store.step`: the end of attempts after which their jobs go on."""
        return self._send(self._store.step, rows, partial(self._hold, self._steps))

    def ask(self, rows: Sequence[Step]) -> Deferred[list[bool]]:
        """See `Store.step`, of attempts that are to stop. It must not pass what was said before, and does not wait.

        Raises:
            CannotWrite: there is no space, and nothing was written.
        """
        if (refusal := self.held_back) is not None:
            return fail(refusal)
        return self._store.step(rows).addErrback(self.saw)

    def settle(self, rows: Sequence[Settled]) -> Deferred[list[bool] | None]:
        """See `Store.settle`. None: the disk is full, there is no room for these results, and nothing was written."""
        return self._send(self._store.settle, rows, self._hold_ends)

    # -- holding

    def _send(
        self,
        write: Callable[[Sequence[T]], Deferred[Any]],
        rows: Sequence[T],
        hold: Callable[[Batch], Deferred[Any]],
    ) -> Deferred[Any]:
        """Write, or hold what comes behind others that are held."""
        batch = Batch(rows, next(self._serial))
        return hold(batch) if self.holding else write(rows).addErrback(self._unless_full, batch, hold)

    def _unless_full(
        self, failure: Failure, batch: Batch, hold: Callable[[Batch], Deferred[Any]]
    ) -> Failure | Deferred[Any]:
        if not is_full(failure):
            return failure
        self.saw(failure)
        return hold(batch)

    def _hold(self, waiting: list[Batch], batch: Batch) -> Deferred[Any]:
        waiting.append(batch)
        if self._timer is None and not self._flushing:
            self._arm()
        return batch.answer

    def _hold_ends(self, batch: Batch) -> Deferred[Any]:
        size = _result_bytes(batch)
        if size and self.held_bytes + size > HELD_RESULTS_MAX_BYTES:
            return succeed(None)
        self.held_bytes += size
        return self._hold(self._ends, batch)

    def _arm(self) -> None:
        self._timer = self._clock.callLater(RETRY_S, self._flush)

    # -- trying again

    def _flush(self) -> None:
        """What was said first, and only when it is committed, how it ended: a fence refuses chunks of an ended one.

        What comes meanwhile waits for the next round, so that no end passes what was said before it.
        """
        self._timer = None
        self._flushing = True
        ends, self._ends = self._ends, []
        steps, self._steps = self._steps, []
        appends, self._appends = self._appends, []
        back = [(self._appends, appends), (self._ends, ends), (self._steps, steps)]
        self._retry(self._store.append, back, lambda: self._retry(
            self._store.settle, back, lambda: self._retry(self._store.step, back, self._flushed)
        ))  # fmt: skip

    def _retry(
        self,
        write: Callable[[Sequence[Any]], Deferred[list[bool]]],
        left: list[tuple[list[Batch], list[Batch]]],
        then: Callable[[], None],
    ) -> None:
        """Write the first kind of what is left of this round in one call, answer each, go on with `then`. On a full
        disk all that is left waits again, before what has come since.
        """  # fmt: skip
        batches = sorted(left[0][1], key=lambda batch: batch.serial)
        rows = [row for batch in batches for row in batch.rows]
        if not rows:
            del left[0]
            then()
            return

        def written(answers: list[bool]) -> None:
            at = 0
            del left[0]
            for batch in batches:
                self.held_bytes -= _result_bytes(batch)
                batch.answer.callback(answers[at : at + len(batch.rows)])
                at += len(batch.rows)
            then()

        def failed(failure: Failure) -> None:
            if is_full(failure):
                for waiting, unwritten in left:
                    waiting[:0] = unwritten
                self._flushing = False
                self._noted(failure)
                self._arm()
                return
            for _, unwritten in left:
                for batch in unwritten:
                    batch.answer.errback(failure)

        write(rows).addCallbacks(written, failed)

    def _flushed(self) -> None:
        self._flushing = False
        if self.holding:  # more came while these were written
            self._flush()
            return
        self._full_at = None
        self._log.info("there is space again: all that waited is stored", action="disk_has_space")
        self._on_space()


def is_full(failure: Failure) -> bool:
    """Whether it passes: a full disk, or whatever else keeps the store from writing for now."""
    return isinstance(failure.value, CannotWrite)


def _result_bytes(batch: Batch) -> int:
    return sum(len(row.result or b"") for row in batch.rows if isinstance(row, Settled))
