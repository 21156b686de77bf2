"""What a cpu worker does: computes one attempt at a time on its main thread, while a second thread listens.

F2, free of Twisted and asyncio. The daemon may kill it at any moment; it judges nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Mapping
from time import monotonic, perf_counter, time_ns
from typing import NoReturn

from jobsvc.model.frames import (
    Begin,
    Cancel,
    Credit,
    FrameError,
    Message,
    Ping,
    Pong,
    Quit,
    Recall,
    Returned,
    Start,
)
from jobsvc.model.limits import RESULT_HOLD_S
from jobsvc.worker.attempt import Port, enter
from jobsvc.worker.blame import exit_status
from jobsvc.worker.capture import seal, uncapture
from jobsvc.worker.leftovers import FORK_S, Leftovers
from jobsvc.worker.link import Link, LinkClosed
from jobsvc.worker.mark import Mark
from jobsvc.worker.memory import rss_bytes
from jobsvc.worker.outbox import BATCH_BYTES, Outbox, Outlet
from jobsvc.worker.running import Code, run

LATE_BEGIN_S = 0.020
"""An attempt of a quick task that runs for so long announces its begin after all: its timeouts count from there."""
EXIT_INTERRUPTED = 130
"""What Python and the shells end with after SIGINT."""


class ComputePort(Port):
    """The way out of the attempt on the main thread, which sends for itself."""

    __slots__ = ("_link", "announced")

    def __init__(self, start: Start, outbox: Outbox, room: threading.Condition, link: Link) -> None:
        super().__init__(start, outbox, room)
        self._link = link
        self.announced = False

    def press(self, outlet: Outlet) -> None:
        """Send at once what comes now and then, in batches what comes in bursts."""
        if outlet.size >= BATCH_BYTES:
            self._link.flush()
            super().press(outlet)
        else:
            self.nudge()

    def flush(self) -> None:
        """Send now: this process may crash in the next line."""
        self._link.flush()

    def nudge(self) -> None:
        """Send now, or let the listening thread do it when the burst pauses."""
        if monotonic() - self._link.flushed_at >= RESULT_HOLD_S:
            self._link.flush()
        else:
            self._link.arm()

    def later(self, after_s: float) -> None:
        """The listening thread sends it then."""
        self._link.arm(after_s)

    def announce(self) -> None:
        """Say that it has begun, unless it has been said or is over."""
        with self.room:
            if not self.announced and not self.closed:
                self.announced = True
                self.outbox.post(Begin(self.no, self.epoch, self.began_us))


class ComputeWorker:
    """See the module.

    Args:
        codes: by name of the task.
        link: the channel; `outbox` is the one it empties.
        mark: says who runs.
    """

    def __init__(self, codes: Mapping[str, Code], link: Link, outbox: Outbox, mark: Mark) -> None:
        self._codes = codes
        self._native: dict[
            str, bool
        ] = {}  # by task, whether its last looked-at attempt wrote past sys.stdout
        self._link = link
        self._outbox = outbox
        self._mark = mark
        self._leftovers = Leftovers()
        self._room = threading.Condition()
        self._waiting: deque[Start] = deque()  # not begun; both threads take from it
        self._work = threading.Lock()  # held while there is none: the main thread waits for it
        self._work.acquire()
        self._asked: dict[tuple[int, int], str] = {}  # cancels that found nothing waiting
        self._quit = False
        self.current: ComputePort | None = None

    # -- the main thread

    def work(self) -> None:
        """Run attempts until told to quit. Runs on the main thread.

        A result leaves before the next attempt begins, unless both are quick: then results gather for a moment.
        """
        waiting, link = self._waiting, self._link
        quick = True
        while True:
            try:
                start = waiting.popleft()
            except IndexError:
                link.flush()
                if self._quit:
                    return
                enter(None, None)
                self._asked.clear()  # they came too late
                if not self._work.acquire(timeout=self._leftovers.again_s()):
                    self._leftovers.clear()
                continue
            if start.quick and not quick:
                link.flush()
                link.arm()
            quick = start.quick
            self._attempt(start)
            if waiting and monotonic() - link.flushed_at >= RESULT_HOLD_S:
                link.flush()

    def _attempt(self, start: Start) -> None:
        port = ComputePort(start, self._outbox, self._room, self._link)
        at_us = time_ns() // 1000
        port.begin(at_us)
        self._mark.begin(port.no, port.epoch, at_us)
        self.current = port
        if self._asked and (reason := self._asked.pop((port.no, port.epoch), None)):
            port.cancel(reason)  # it came between the queue and here
        if not start.quick:
            port.announce()
            self._link.flush()
        began = perf_counter()
        try:
            error, body, again = run(self._codes, port)
        except (SystemExit, KeyboardInterrupt) as exit_:
            self._exit(port, exit_)
        run_s = perf_counter() - began
        if run_s >= FORK_S:
            self._leftovers.clear()
        # Looking costs as much as half a quick task: one that was silent here is trusted to stay so.
        if not start.quick or self._native.get(start.task, True):
            self._native[start.task] = seal(port.no, port.epoch)
        port.finish(run_s, error, body, again)
        self.current = None
        self._mark.clear()

    def _exit(self, port: Port, exit_: BaseException) -> NoReturn:
        """The task's code wants the process to end, so it does; the daemon judges what that means.

        The mark stays, as it says who ran; no result is sent.
        """
        status = exit_status(exit_) if isinstance(exit_, SystemExit) else EXIT_INTERRUPTED
        if isinstance(exit_, SystemExit) and not (exit_.code is None or isinstance(exit_.code, int)):
            sys.stderr.write(f"{exit_.code}\n")  # as Python does
        port.leave()
        self._link.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # -- the listening thread

    def listen(self) -> None:
        """Take messages until the daemon is gone. Runs on a thread of its own."""
        try:
            while True:
                for message in self._link.read(self._tick):
                    self._take(message)
                if self._waiting and self._work.locked():
                    self._work.release()
        except LinkClosed:
            os._exit(1)
        except FrameError as error:
            sys.stderr.write(f"what came from the daemon is no frame: {error}\n")
            os._exit(1)
        except MemoryError:
            # What came is torn, and a worker that does not listen is worse than none.
            os.write(2, b"no memory is left to listen to the daemon\n")
            os._exit(1)

    def _take(self, message: Message) -> None:
        if isinstance(message, Start):
            self._waiting.append(message)
            if message.quick:
                self._link.expect(LATE_BEGIN_S if len(self._waiting) == 1 else RESULT_HOLD_S)
        elif isinstance(message, Credit):
            port = self.current
            if port is not None and (port.no, port.epoch) == (message.no, message.epoch):
                port.add_credit(message.stream, message.bytes)
                self._link.flush()
        elif isinstance(message, Cancel):
            self._cancel((message.no, message.epoch), message.reason)
        elif isinstance(message, Recall):
            self._give_back_all()
        elif isinstance(message, Ping):
            self._outbox.post(Pong(message.n, rss_bytes()))
            self._link.flush()
        elif isinstance(message, Quit):
            self._quit = True
            self._give_back_all()
            if self._work.locked():
                self._work.release()

    def _cancel(self, key: tuple[int, int], reason: str) -> None:
        for start in self._waiting.copy():
            if (start.no, start.epoch) == key:
                try:
                    self._waiting.remove(start)
                except ValueError:
                    break  # the main thread has just taken it
                self._give_back([start])
                return
        # First noted, then looked: the main thread first shows what it runs, then looks for notes.
        self._asked[key] = reason
        port = self.current
        if port is not None and (port.no, port.epoch) == key:
            port.cancel(reason)

    def _give_back_all(self) -> None:
        starts: list[Start] = []
        while self._waiting:
            try:
                starts.append(self._waiting.pop())
            except IndexError:
                break  # the main thread has just taken the last one
        self._give_back(starts[::-1])

    def _give_back(self, starts: list[Start]) -> None:
        self._outbox.post(Returned([(start.no, start.epoch) for start in starts]))
        self._link.flush()

    def _tick(self) -> None:
        """It is time to send what waits; and to look whether what should be quick is not."""
        port = self.current
        if port is not None:
            self._outbox.stir(port)
            if time_ns() // 1000 - port.began_us >= LATE_BEGIN_S * 1e6:
                port.announce()
            if port.announced:
                return
        if self._waiting:
            self._link.expect(RESULT_HOLD_S)
        elif port is not None:
            self._link.expect(LATE_BEGIN_S)

    # -- a forked child

    def forsake(self) -> None:
        """In a child that a task's code has forked: it is no worker, and what it prints goes to the pipes."""
        if self.current is not None:
            self.current.closed = True
        uncapture()
        self._link.close()
