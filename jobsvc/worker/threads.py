"""The executor `thread`: plain functions and generators that may block, on a pool of threads of its own.

F2. `start` and `cancel` are called on the reactor's thread. A running thread can only be asked to stop; one that does
not listen keeps its place until it returns.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from time import perf_counter

from jobsvc.model.frames import Start
from jobsvc.worker.attempt import Port
from jobsvc.worker.blame import task_error
from jobsvc.worker.outbox import Outbox
from jobsvc.worker.running import Code, Ending, run


class ThreadPort(Port):
    """The way out of an attempt on a thread: its producer waits as threads do.

    Args:
        loop: the reactor's loop; what waits is collected there.
    """

    __slots__ = ("_loop",)

    def __init__(self, start: Start, outbox: Outbox, loop: AbstractEventLoop) -> None:
        super().__init__(start, outbox, threading.Condition())
        self._loop = loop

    def later(self, after_s: float) -> None:
        """Progress that was held back is sent then."""
        self._loop.call_later(after_s, self.outbox.stir, self)


class ThreadExecutor:
    """See the module.

    Args:
        codes: by name of the task.
        size: threads at most; they are started when they are needed, and kept.
        on_begin: called before an attempt runs that had to wait for a thread. Runs on that thread, and may wait.
        on_end: called when an attempt has ended and its result is posted. Runs on its thread.
    """

    def __init__(
        self,
        codes: Mapping[str, Code],
        size: int,
        on_begin: Callable[[Port], None],
        on_end: Callable[[Port], None],
    ) -> None:
        self._codes = codes
        self._size = size
        self._on_begin = on_begin
        self._on_end = on_end
        self._changed = threading.Condition()
        self._waiting: deque[Port] = deque()
        self._idle = 0  # threads that wait
        self._threads = 0
        self._running = 0  # attempts on a thread

    def free(self) -> int:
        """How many more attempts would find a thread at once."""
        return self._size - self._running - len(self._waiting)

    def start(self, port: Port) -> None:
        """Run an attempt; one that has not begun waits for a thread."""
        with self._changed:
            self._waiting.append(port)
            if len(self._waiting) <= self._idle or self._threads == self._size:
                self._changed.notify()
                return
            self._threads += 1
            name = f"jobsvc-thread-{self._threads}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def withdraw(self, port: Port) -> bool:
        """Take back an attempt that has not begun; False: it has."""
        with self._changed:
            if port.began_us or port not in self._waiting:
                return False
            self._waiting.remove(port)
            return True

    def _serve(self) -> None:
        """The life of one thread."""
        while True:
            with self._changed:
                while not self._waiting:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                port = self._waiting.popleft()
                self._running += 1
            if not port.began_us:
                self._on_begin(port)
            # A context of its own for each attempt; nothing of the one before is left in it.
            Context().run(self._attempt, port)
            with self._changed:
                self._running -= 1
            self._on_end(port)

    def _attempt(self, port: Port) -> None:
        began = perf_counter()
        ending: Ending
        try:
            ending = run(self._codes, port)
        except (SystemExit, KeyboardInterrupt) as exit_:
            ending = task_error(exit_), b"", None  # the process has others to serve
        port.finish(perf_counter() - began, *ending)
