"""The reactor watchdog: what blocks the reactor is measured, counted and named; what does not costs nothing (F66)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from jobsvc.runtime import watchdog as watchdog_module
from jobsvc.runtime.watchdog import (
    LASTING_S,
    SLEEP_MAX_S,
    STALL_S,
    TOLD_MAX,
    TOLD_WINDOW_S,
    MarkedPoller,
    Stall,
    Turns,
    Watchdog,
    thread_state,
)

DEADLINE_S = 30.0


class Scene:
    """A reactor whose turns take as long as the test says, and the watchdog's thread played by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.turns = Turns(lambda: self.now_s)
        self.poll = self.turns.around(lambda *_: [])
        self.told: list[Stall] = []
        self.frame: FrameType | None = None
        self.watchdog = Watchdog(
            self.turns,
            monotonic=lambda: self.now_s,
            tell=self.told.append,
            frames=lambda: {} if self.frame is None else {0: self.frame},
            state=lambda _: "S",
        )
        self.poll()

    def turn(self, length_s: float) -> None:
        """The running turn lasts so long, and ends."""
        self.now_s += length_s
        self.poll()

    def look(self) -> float:
        """The thread looks, at what it was handed too."""
        if self.turns.wake.empty():
            return self.watchdog.look()
        wait_s = 0.0
        while not self.turns.wake.empty():
            wait_s = self.watchdog.look(self.turns.wake.get())
        return wait_s


def culprit(then: Callable[[], None]) -> None:
    """What holds the reactor up."""
    then()


def test_quick_turns_are_counted_and_not_told() -> None:
    """Every turn is in the histogram."""
    scene = Scene()
    for length_s in (0.0001, 0.0009, 0.002, 0.049):
        scene.turn(length_s)
    scene.look()
    assert scene.told == []
    assert (scene.turns.lengths.count, scene.turns.stalls) == (4, 0)
    assert scene.turns.lengths.sum == pytest.approx(0.052)
    assert dict(scene.turns.lengths.buckets())["0.001"] == 2


def test_a_stall_is_told_with_its_stack_and_its_length() -> None:
    """F66: the stack is taken while it lasts, the length at its end."""
    scene = Scene()
    assert scene.look() == pytest.approx(STALL_S)
    scene.now_s += 0.06

    def blocked() -> None:
        scene.frame = sys._getframe()
        scene.look()

    culprit(blocked)
    assert scene.told == []  # it may end in a moment
    scene.turn(0.3)
    scene.look()
    (stall,) = scene.told
    assert (round(stall.length_s, 6), stall.lasting, stall.thread_state) == (0.36, False, "S")
    assert "in blocked" in stall.stack[-1]
    assert any("in culprit" in line and "then()" in line for line in stall.stack)
    assert scene.turns.stalls == 1


def test_a_stall_that_does_not_end_is_told_meanwhile() -> None:
    """Once, and again at its end."""
    scene = Scene()
    scene.frame = sys._getframe()
    scene.now_s += 0.06
    assert scene.look() == pytest.approx(LASTING_S - 0.06)
    scene.now_s += LASTING_S
    scene.look()
    scene.now_s += LASTING_S
    scene.look()
    assert [(stall.lasting, round(stall.length_s, 6)) for stall in scene.told] == [(True, 1.06)]
    scene.turn(10)
    scene.look()
    assert [(stall.lasting, round(stall.length_s, 6)) for stall in scene.told[1:]] == [(False, 12.06)]
    assert all(stall.stack for stall in scene.told)


def test_a_stall_nobody_saw_is_told_without_a_stack() -> None:
    """The thread came too late: the length is known all the same, and no wrong stack is shown."""
    scene = Scene()
    scene.frame = sys._getframe()
    scene.turn(0.2)
    scene.look()
    assert [(round(stall.length_s, 6), stall.stack) for stall in scene.told] == [(0.2, ())]


def test_a_stack_of_the_next_turn_is_not_blamed() -> None:
    """The turn ended while its stack was being taken."""
    scene = Scene()
    scene.now_s += 0.06

    def frames() -> dict[int, FrameType]:
        scene.turn(0)
        return {0: sys._getframe()}

    scene.watchdog._frames = frames
    scene.look()
    scene.look()
    assert [stall.stack for stall in scene.told] == [()]


def test_an_idle_reactor_lets_it_sleep_until_it_is_woken() -> None:
    """No wake-up of its own while nothing happens; the first turn after that wakes it, the next ones do not."""
    scene = Scene()
    waiting: list[float] = []

    def poll(*_: Any) -> list[Any]:
        waiting.append(scene.look())  # while the reactor waits
        waiting.append(scene.look())
        assert scene.turns.asleep
        return []

    scene.turns.around(poll)(1, 2)
    assert waiting == [STALL_S, SLEEP_MAX_S]
    assert not scene.turns.asleep
    assert scene.turns.wake.get_nowait() is None
    scene.turn(0.001)
    scene.turn(0.001)
    assert scene.turns.wake.empty()


def test_a_busy_reactor_does_not_wake_it_at_each_turn() -> None:
    """It is found in its poll, and has turned since: look again when something could have become a stall."""
    scene = Scene()
    waits: list[float] = []
    poll = scene.turns.around(lambda *_: waits.append(scene.look()))
    for _ in range(5):
        scene.now_s += 0.002
        poll()
    assert waits == [STALL_S] * 5
    assert scene.turns.wake.empty()


def test_a_poll_that_raises_is_over() -> None:
    """The turn begins all the same."""
    scene = Scene()

    def poll(*_: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        scene.turns.around(poll)()
    assert scene.turns.began_s == scene.now_s


@implementer(ILogObserver)
class Seen:
    """Events of the watchdog."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event.get("action") == "reactor_blocked":
            self.events.append(event)


def test_the_log_is_not_flooded() -> None:
    """A few are told, the others counted, and the next one that is told says how many they were."""
    now_s = [0.0]
    watchdog = Watchdog(monotonic=lambda: now_s[0])
    seen = Seen()
    globalLogPublisher.addObserver(seen)
    try:
        for n in range(TOLD_MAX + 3):
            watchdog.log(Stall(float(n), 0.1, ('  File "x.py", line 1, in f\n    g()\n',), "R"))
        assert (len(seen.events), watchdog.untold) == (TOLD_MAX, 3)
        now_s[0] += TOLD_WINDOW_S
        watchdog.log(Stall(99.0, 0.1, (), ""))
    finally:
        globalLogPublisher.removeObserver(seen)
    watchdog = Watchdog(monotonic=lambda: now_s[0])
    globalLogPublisher.addObserver(seen)
    ours = (
        '  File "' + str(Path(watchdog_module.__file__).parents[1]) + '/x.py", line 7, in ours\n    wait()\n'
    )
    try:
        watchdog.log(Stall(9.0, 0.1, (ours, '  File "/lib/y.py", line 1, in wait\n    z()\n'), "S"))
    finally:
        globalLogPublisher.removeObserver(seen)
    assert 'line 1, in wait, called by File "' in seen.events.pop()["where"]
    assert seen.events[0]["where"] == 'File "x.py", line 1, in f'
    assert seen.events[0]["doing"].startswith("computing")
    assert seen.events[-1]["more"] == "; 3 earlier ones were not told"


def test_reactors_that_cannot_be_watched_are_left_alone() -> None:
    """No poll to be reached: it says so, and starts nothing."""
    watchdog = Watchdog()
    assert watchdog.attach(object()) is False
    watchdog.stop()


@pytest_twisted.ensureDeferred
async def test_the_real_reactor_names_a_call_that_blocks_it() -> None:
    """F66: epoll and asyncio alike; the call blocks until the watchdog has its stack, so no time is measured."""
    from twisted.internet import reactor

    before = getattr(reactor, "_poller", None)
    sampled = threading.Event()
    told: Deferred[Stall] = Deferred()

    def state(native_id: int) -> str:  # asked for when the stack has been taken
        sampled.set()
        return thread_state(native_id)

    def tell(stall: Stall) -> None:
        if stall.stack and not stall.lasting:
            reactor.callFromThread(first, stall)  # type: ignore[attr-defined]

    def first(stall: Stall) -> None:
        if not told.called:
            told.callback(stall)

    watchdog = Watchdog(tell=tell, state=state)
    assert watchdog.attach(reactor)

    def block() -> None:
        assert sampled.wait(DEADLINE_S)

    try:
        reactor.callLater(0, block)
        told.addTimeout(DEADLINE_S, reactor)
        stall = await told
    finally:
        watchdog.stop()
    assert any("sampled.wait(DEADLINE_S)" in line for line in stall.stack)
    assert stall.length_s >= STALL_S
    assert watchdog.turns.stalls >= 1
    assert getattr(reactor, "_poller", None) is before
    assert not any(thread.name == "jobsvc-watchdog" for thread in threading.enumerate())


def test_the_marked_poller_is_an_epoll_object_otherwise() -> None:
    """What the reactor asks of it reaches the real one."""
    import os
    import select

    real = select.epoll()
    poller = MarkedPoller(real, Turns())
    read, write = os.pipe()
    poller.register(read, select.EPOLLIN)
    os.write(write, b"x")
    assert poller.poll(DEADLINE_S, 1) == [(read, select.EPOLLIN)]
    poller.modify(read, 0)
    poller.unregister(read)
    assert poller.fileno() == real.fileno()
    poller.close()
    assert real.closed
    os.close(read)
    os.close(write)


def test_the_state_of_a_thread() -> None:
    """This one runs; one that is not there has none."""
    assert thread_state(threading.get_native_id()) == "R"
    assert thread_state(0x7FFFFFFF) == ""
