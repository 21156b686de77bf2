"""Waiting without sharing: each waiter has a Deferred of its own, and may leave at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from jobsvc.runtime.waiting import Background, Waiters, leave, within
from tests.engine.fakes import result_of

if TYPE_CHECKING:
    from tests.conftest import FlushFailures


def test_each_waiter_gets_the_value() -> None:
    waiters: Waiters[int] = Waiters()
    waiting = [waiters.wait() for _ in range(3)]
    assert len(waiters) == 3
    waiters.fire(7)
    assert [result_of(each) for each in waiting] == [7, 7, 7]
    assert len(waiters) == 0


def test_a_waiter_may_cancel_the_others_when_it_is_woken() -> None:
    """As one does that waited for several things at once."""
    waiters: Waiters[int] = Waiters()
    waiting = [waiters.wait() for _ in range(5)]
    ends: list[object] = []

    def cancel_all(value: object) -> None:
        ends.append(value)
        for each in waiting:
            each.cancel()

    for each in waiting:
        each.addBoth(cancel_all)
    waiters.fire(7)
    assert len(ends) == 5
    assert ends.count(7) == 1


def test_a_waiter_that_waits_again_waits_for_the_next_moment() -> None:
    waiters: Waiters[int] = Waiters()
    seen: list[int] = []

    def again(value: int) -> None:
        seen.append(value)
        waiters.wait().addCallback(again)

    waiters.wait().addCallback(again)
    waiters.fire(1)
    waiters.fire(2)
    assert seen == [1, 2]


def test_a_wait_has_an_end() -> None:
    clock, waiters = Clock(), Waiters[int]()
    early, late = within(clock, 5, waiters.wait()), within(clock, 10, waiters.wait())
    clock.advance(5)
    assert result_of(early) is None
    waiters.fire(7)
    assert result_of(late) == 7
    assert clock.getDelayedCalls() == []


def test_who_cancels_a_wait_is_not_told_that_the_time_was_up() -> None:
    clock, waiters = Clock(), Waiters[int]()
    waiting = within(clock, 5, waiters.wait())
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    assert clock.getDelayedCalls() == []
    assert len(waiters) == 0


def test_leaving_leaves_no_error_behind() -> None:
    waiters: Waiters[int] = Waiters()
    waiting = waiters.wait()
    leave(waiting)
    assert len(waiters) == 0
    assert result_of(waiting) is None


def test_detached_work_goes_on_when_its_asker_leaves(flush_failures: FlushFailures) -> None:
    background = Background()
    work: Deferred[int] = Deferred()
    asked = background.detached(lambda: work)
    drained = Deferred.fromCoroutine(background.drained())
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(asked)
    assert not drained.called
    work.errback(ValueError("nobody hears it"))
    assert drained.called
    assert len(flush_failures(ValueError)) == 1


def test_detached_work_answers_its_asker() -> None:
    background = Background()
    assert result_of(background.detached(result)) == 7
    assert Deferred.fromCoroutine(background.drained()).called


def result() -> Deferred[int]:
    deferred: Deferred[int] = Deferred()
    deferred.callback(7)
    return deferred
