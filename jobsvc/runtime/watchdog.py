"""F1: the reactor watchdog: how long each turn of the reactor takes, and what the reactor was doing when one took long.

A turn is all between two polls: nobody else is served while it lasts. The poll is wrapped, so that each turn has its
beginning and its end; a thread looks at the running turn and takes the reactor's stack once it has lasted `STALL_S`.
While the reactor waits in its poll the thread sleeps: an idle daemon pays for neither.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from traceback import StackSummary, format_list, walk_stack
from types import FrameType
from typing import Any, Final, NamedTuple

from twisted.logger import Logger

from jobsvc.model.histogram import Histogram

STALL_S: Final = 0.05
"""Law 1 of the design: longer is a bug."""
LASTING_S: Final = 1.0
"""A stall that has lasted so long is told before its end: it may have none."""
TURN_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets of the histogram of turns."""
TOLD_MAX: Final = 6
TOLD_WINDOW_S: Final = 60.0
"""At most so many stalls are told in so long; the others are counted. A busy machine must not fill the log."""
STACK_FRAMES_MAX: Final = 40
"""Innermost frames that are kept: the culprit is among them, Twisted's own are at the other end."""
SLEEP_MAX_S: Final = 60.0
"""The longest sleep of the thread while the reactor waits: only a safety net, the reactor wakes it."""


class Stall(NamedTuple):
    """One turn that took too long.

    Attributes:
        began_s: monotonic.
        length_s: of the whole turn; so far when `lasting`.
        stack: of the reactor's thread when the turn had lasted `STALL_S`, innermost last; empty when the turn was over
            before the thread could look.
        thread_state: of the kernel then: `R` it computed or waited for a processor, `S` or `D` it slept in a call.
        lasting: it has not ended.
    """

    began_s: float
    length_s: float
    stack: tuple[str, ...]
    thread_state: str
    lasting: bool = False


class Turns:
    """The marks that the reactor's thread sets around its poll. Costs it about half a microsecond a turn.

    Attributes:
        began_s: when the running turn began; 0 while the reactor polls.
        lengths: of all turns.
        asleep: the watchdog's thread wants to be woken by the next turn.
    """

    __slots__ = ("_least_s", "_monotonic", "_quick", "asleep", "began_s", "lengths", "stalls", "wake")

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        self.began_s = 0.0
        self.asleep = False
        self.lengths = Histogram(TURN_BOUNDS_S)
        self.stalls = 0
        self.wake: SimpleQueue[tuple[float, float] | None] = SimpleQueue()
        self._monotonic = monotonic
        self._quick = self.lengths.counts  # written here for the many that are quick, without a search
        self._least_s = TURN_BOUNDS_S[0]

    def around(self, poll: Callable[..., Any]) -> Callable[..., Any]:
        """The poll with marks before and after it."""
        now_s, lengths, quick, least_s = self._monotonic, self.lengths, self._quick, self._least_s

        def marked(*args: Any) -> Any:
            length_s = now_s() - self.began_s
            if length_s <= least_s:
                quick[0] += 1
                lengths.sum += length_s
            elif self.began_s:
                self._slow(self.began_s, length_s)
            self.began_s = 0.0
            try:
                return poll(*args)
            finally:
                self.began_s = now_s()
                if self.asleep:
                    self.asleep = False
                    self.wake.put(None)

        return marked

    def _slow(self, began_s: float, length_s: float) -> None:
        self.lengths.observe(length_s)
        if length_s >= STALL_S:
            self.stalls += 1
            self.wake.put((began_s, length_s))


class Watchdog:
    """See the module.

    Args:
        turns: the marks.
        tell: told of each stall, in the watchdog's thread; logs it by default.
        frames: the stacks of all threads, by thread; `sys._current_frames`.
        state: the kernel's word for the watched thread.
    """

    _log = Logger()

    def __init__(
        self,
        turns: Turns | None = None,
        *,
        monotonic: Callable[[], float] = monotonic,
        tell: Callable[[Stall], None] | None = None,
        frames: Callable[[], Mapping[int, FrameType]] = sys._current_frames,  # noqa: SLF001 - its public name
        state: Callable[[int], str] | None = None,
    ) -> None:
        self.turns = Turns(monotonic) if turns is None else turns
        self.untold = 0
        """Stalls that were counted and not logged, since the last one that was."""
        self.last: Stall | None = None
        """The newest stall that has ended."""
        self._monotonic = monotonic
        self._tell = self.log if tell is None else tell
        self._frames = frames
        self._state = thread_state if state is None else state
        self._sample: Stall | None = None
        self._seen = -1  # turns, when the reactor was last found in its poll
        self._told_at: list[float] = []
        self._restore: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._ident = self._native = 0
        self._stopped = False

    # -- life

    def attach(self, reactor: Any) -> bool:
        """Watch this reactor, whose thread is the caller's; False: its poll cannot be reached, so it is not watched."""
        self._ident, self._native = threading.get_ident(), threading.get_native_id()
        if (poller := getattr(reactor, "_poller", None)) is not None and hasattr(poller, "register"):
            # The epoll object's attributes cannot be set: one of ours stands in its place. No public door leads there
            # (Twisted 26.10, epollreactor).
            reactor._poller = MarkedPoller(poller, self.turns)  # noqa: SLF001

            def restore() -> None:
                reactor._poller = poller  # noqa: SLF001

        elif (
            selector := getattr(getattr(reactor, "_asyncioEventloop", None), "_selector", None)
        ) is not None:
            select = selector.select
            selector.select = self.turns.around(select)

            def restore() -> None:
                selector.select = select

        else:
            return False
        self._restore = restore
        self._thread = threading.Thread(target=self._watch, name="jobsvc-watchdog", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Take the marks away and end the thread."""
        if self._restore is not None:
            self._restore()
            self._restore = None
        self._stopped = True
        self.turns.wake.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # -- the thread

    def _watch(self) -> None:
        wait_s = 0.0
        while not self._stopped:
            try:
                ended = self.turns.wake.get(timeout=wait_s) if wait_s > 0 else self.turns.wake.get_nowait()
            except Empty:
                ended = None
            wait_s = self.look(ended)

    def look(self, ended: tuple[float, float] | None = None) -> float:
        """See how the running turn stands; `ended` is one that has been slow. Returns after how long to look again."""
        turns = self.turns
        if ended is not None:
            self._ended(*ended)
        began_s = turns.began_s
        if not began_s:
            seen, self._seen = self._seen, turns.lengths.count
            if self._seen != seen:
                return STALL_S  # a busy one need not wake us at each turn: what begins now is no stall before that
            turns.asleep = True
            began_s = turns.began_s  # one may have begun before it could see that we sleep
            if not began_s:
                return SLEEP_MAX_S
            turns.asleep = False
        lasted_s = self._monotonic() - began_s
        if lasted_s < STALL_S:
            return max(STALL_S - lasted_s, 0.001)
        sample = self._sample
        if sample is None or sample.began_s != began_s:
            self._sample = self._sampled(began_s, lasted_s)
            return max(LASTING_S - lasted_s, STALL_S)
        if not sample.lasting and lasted_s >= LASTING_S:
            self._sample = sample._replace(length_s=lasted_s, lasting=True)
            self._tell(self._sample)
        return LASTING_S

    def _sampled(self, began_s: float, lasted_s: float) -> Stall:
        frame = self._frames().get(self._ident)
        stack: tuple[str, ...] = ()
        if frame is not None:
            # The lines are looked up now, for a stack is an address book: what it points to goes on.
            summary = StackSummary.extract(walk_stack(frame), limit=STACK_FRAMES_MAX, lookup_lines=True)
            summary.reverse()
            stack = tuple(format_list(summary))
        if self.turns.began_s != began_s:
            stack = ()  # of the next turn already
        return Stall(began_s, lasted_s, stack, self._state(self._native))

    def _ended(self, began_s: float, length_s: float) -> None:
        sample, self._sample = self._sample, None
        if sample is None or sample.began_s != began_s:
            sample = Stall(began_s, length_s, (), "")
        self.last = sample._replace(length_s=length_s, lasting=False)
        self._tell(self.last)

    # -- telling

    def log(self, stall: Stall) -> None:
        """A line for it, unless there were many."""
        now_s = self._monotonic()
        self._told_at = [at for at in self._told_at if now_s - at < TOLD_WINDOW_S]
        if len(self._told_at) >= TOLD_MAX:
            self.untold += 1
            return
        self._told_at.append(now_s)
        untold, self.untold = self.untold, 0
        where = _head(stall.stack[-1]) if stall.stack else "code that was over before it could be seen"
        ours = [frame for frame in stall.stack[:-1] if _OURS in frame]
        if ours and _OURS not in stall.stack[-1]:
            where += f", called by {_head(ours[-1])}"
        self._log.warn(
            "the reactor {verb} for {length_s:.3f} s ({doing}) in {where}{more}",
            verb="is blocked" if stall.lasting else "was blocked", length_s=stall.length_s, where=where,
            doing=_DOING.get(stall.thread_state, "not known"), stack="".join(stall.stack),
            more=f"; {untold} earlier ones were not told" if untold else "", action="reactor_blocked",
        )  # fmt: skip


_DOING: Final = {
    "R": "computing, or waiting for a processor",
    "S": "sleeping in a call",
    "D": "waiting for a disk",
}

_OURS: Final = f'File "{Path(__file__).parents[1]}/'
"""A frame of this package: where the standard library blocks is seldom the mistake."""


def _head(frame: str) -> str:
    return frame.strip().partition("\n")[0]


class MarkedPoller:
    """An epoll object with marks around its poll."""

    def __init__(self, poller: Any, turns: Turns) -> None:
        self.poll = turns.around(poller.poll)
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister
        self.close = poller.close
        self.fileno = poller.fileno


def thread_state(native_id: int) -> str:
    """The kernel's letter for a thread of this process; empty when it cannot be read."""
    try:
        text = Path(f"/proc/self/task/{native_id}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
