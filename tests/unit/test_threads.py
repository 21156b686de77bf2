"""Named pools: bounded, answered on the reactor, drained before they stop."""

from __future__ import annotations

import threading

import pytest
from twisted.internet.defer import CancelledError, Deferred

from jobsvc.model.errors import JobsvcError
from jobsvc.runtime.context import REQUEST_ID
from jobsvc.runtime.threads import NamedPool
from tests.contract.store_harness import ANSWER_S, PumpedReactor


def test_work_runs_in_a_thread_of_that_name() -> None:
    """And its value or failure comes back on the reactor."""
    reactor = PumpedReactor()
    pool = NamedPool(reactor.provided, "reading", 1, 10)
    assert "reading" in reactor.wait(pool.run(lambda: threading.current_thread().name))
    assert reactor.wait(pool.run(lambda a, b: a - b, 5, b=3)) == 2
    with pytest.raises(ZeroDivisionError):
        reactor.wait(pool.run(lambda: 1 // 0))
    assert pool.in_flight == 0
    reactor.wait(pool.stop())


def test_too_much_is_refused_at_once() -> None:
    """What runs and what waits is bounded; there is room again when something has ended."""
    reactor = PumpedReactor()
    pool = NamedPool(reactor.provided, "reading", 1, 1)
    gate = threading.Event()
    running = pool.run(gate.wait, ANSWER_S)
    waiting = pool.run(lambda: "second")
    with pytest.raises(JobsvcError, match="reading") as refused:
        reactor.wait(pool.run(lambda: "third"))
    assert refused.value.code == "overloaded"
    assert pool.in_flight == 2
    gate.set()
    assert reactor.wait(running) is True
    assert reactor.wait(waiting) == "second"
    assert reactor.wait(pool.run(lambda: "third")) == "third"
    reactor.wait(pool.stop())


def test_stop_lets_work_in_hand_end() -> None:
    """New work is refused, old work is answered, then the threads are gone."""
    reactor = PumpedReactor()
    pool = NamedPool(reactor.provided, "draining", 2, 10)
    gate = threading.Event()
    answers = [pool.run(gate.wait, ANSWER_S) for _ in range(4)]
    stopped: Deferred[None] = pool.stop()
    with pytest.raises(JobsvcError, match="stopping"):
        reactor.wait(pool.run(lambda: None))
    assert not stopped.called
    gate.set()
    reactor.wait(stopped)
    assert [reactor.wait(answer) for answer in answers] == [True] * 4
    assert not any("draining" in thread.name for thread in threading.enumerate())


def test_a_cancelled_call_still_counts_until_it_ends() -> None:
    """A thread cannot be stopped: the asker is answered, the place stays taken."""
    reactor = PumpedReactor()
    pool = NamedPool(reactor.provided, "reading", 1, 0)
    gate = threading.Event()
    answer = pool.run(gate.wait, ANSWER_S)
    answer.cancel()
    with pytest.raises(CancelledError):
        reactor.wait(answer)
    assert pool.in_flight == 1
    gate.set()
    reactor.turn()
    assert pool.in_flight == 0
    reactor.wait(pool.stop())


def test_a_pool_that_was_never_used_stops_too() -> None:
    """Threads start with the first call only."""
    reactor = PumpedReactor()
    before = threading.active_count()
    pool = NamedPool(reactor.provided, "unused", 5, 5)
    assert threading.active_count() == before
    reactor.wait(pool.stop())


def test_work_runs_in_the_context_of_who_asked() -> None:
    """What it logs names the request that it is for; what it sets there stays there."""
    reactor = PumpedReactor()
    pool = NamedPool(reactor.provided, "reading", 1, 10)

    def work() -> str | None:
        found = REQUEST_ID.get()
        REQUEST_ID.set("changed")
        return found

    answers = []
    for name in ("r-1", "r-2"):
        token = REQUEST_ID.set(name)
        answers.append(pool.run(work))
        REQUEST_ID.reset(token)
    answers.append(pool.run(work))
    assert [reactor.wait(answer) for answer in answers] == ["r-1", "r-2", None]
    reactor.wait(pool.stop())
