"""F2: the `command` executor: a worker without a process of its own that starts one program for each attempt.

To the engine it looks like any other worker. The next program is started when the last one runs: what waits here can
still be given back, and a worker that is started meanwhile waits for one program at most. When no process is to be
had, what was to be started goes on waiting. What a program says and how it ends is `command_run`'s matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from jobsvc.model.frames import Cancel, Credit, Message, Quit, Recall, Returned, Start
from jobsvc.model.task import TaskSpec
from jobsvc.pool.command_run import CommandRun
from jobsvc.pool.launcher import Launcher
from jobsvc.ports import Death, WorkerKind, WorkerListener
from jobsvc.runtime.waiting import Waiters

Attempt = tuple[int, int]

AGAIN_S = 1.0
"""Pause after a start for which there was no descriptor, process or memory: others must end first."""


class CommandWorker:
    """See the module; implements `ports.Worker`. `tasks` is exchanged by a reload; what runs is not touched."""

    _log = Logger()

    def __init__(
        self,
        *,
        worker_id: str,
        slots: int,
        launcher: Launcher,
        listener: WorkerListener,
        monotonic: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        self.id = worker_id
        self.kind: WorkerKind = "command"
        self.slots: Mapping[str, int] = {"command": slots}
        self.lacks: frozenset[str] = frozenset()  # a program needs no module
        self.tasks: Mapping[str, TaskSpec] = {}
        self.state = "ready"
        self.started_us = now_us()
        self._launcher = launcher
        self._listener = listener
        self._monotonic = monotonic
        self._now_us = now_us
        self._waiting: deque[Start] = deque()
        self._runs: dict[Attempt, CommandRun] = {}
        self._offered = False  # the engine knows it
        self._next: IDelayedCall | None = None
        self._starting: Attempt | None = None
        self._idle: Waiters[None] = Waiters()

    # -- ports.Worker

    def send(self, messages: Sequence[Message]) -> None:
        """See `ports.Worker`."""
        for message in messages:
            if isinstance(message, Start):
                self._waiting.append(message)
                self._schedule()
            elif isinstance(message, Credit):
                if (run := self._runs.get((message.no, message.epoch))) is not None:
                    run.credit(message.stream, message.bytes)
            elif isinstance(message, Cancel):
                self._cancel(message.no, message.epoch)
            elif isinstance(message, Recall):
                self._give_back(list(self._waiting))
            elif isinstance(message, Quit):
                self.quit()

    def kill(self, no: int, epoch: int) -> bool:
        """See `ports.Worker`."""
        run = self._runs.get((no, epoch))
        if run is None:
            return False
        run.kill()
        return True

    def quit(self) -> None:
        """See `ports.Worker`; it takes nothing more."""
        self.state = "stopping"
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._give_back(list(self._waiting))

    def running(self) -> tuple[int, int, int] | None:
        """See `ports.Worker`: its attempts say themselves when they begin."""
        return None

    # -- for the pool

    def offer(self) -> None:
        """The engine may use it."""
        self._offered = True
        self._listener.worker_ready(self)

    def stop(self) -> Deferred[None]:
        """Kill what runs; fires when all of it has ended, and the engine has heard of every end."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.quit()
        for run in list(self._runs.values()):
            run.kill()
        while self._runs:
            await self._idle.wait()
        if self._offered:
            self._offered = False
            self._listener.worker_died(self, Death("quit", None))

    # -- attempts

    def _schedule(self, pause_s: float = 0.0) -> None:
        if self._next is None and self._starting is None and self._waiting:
            self._next = self._launcher.clock.callLater(pause_s, self._start_next)

    def _start_next(self) -> None:
        self._next = None
        if self._waiting:
            self._begin(self._waiting.popleft())

    def _begin(self, start: Start) -> None:
        key = (start.no, start.epoch)
        run = CommandRun(
            start=start,
            launcher=self._launcher,
            monotonic=self._monotonic,
            now_us=self._now_us,
            on_started=lambda: self._runs_now(key),
            on_scarce=lambda error: self._wait(start, error),
            tell=self._tell,
            on_ended=lambda messages: self._ended(key, messages),
        )
        self._runs[key] = run
        self._starting = key
        run.begin(self.tasks.get(start.task))

    def _runs_now(self, key: Attempt) -> None:
        """This one is not being started any more."""
        if self._starting == key:
            self._starting = None
            self._schedule()

    def _wait(self, start: Start, error: OSError) -> None:
        """It could not be started now, and has not begun: it is the next one to be tried, or goes back."""
        self._runs.pop((start.no, start.epoch))
        self._starting = None
        self._waiting.appendleft(start)
        if self.state == "stopping":
            self._give_back([start])
            self._idle.fire(None)
        else:
            self._schedule(AGAIN_S)
        self._log.warn(
            "{task} cannot be started now, it waits: {error}",
            task=start.task,
            error=error,
            action="start_waits",
        )

    def _tell(self, messages: Sequence[Message]) -> None:
        self._listener.worker_messages(self, messages)

    def _ended(self, key: Attempt, messages: Sequence[Message]) -> None:
        self._runs.pop(key, None)
        self._tell(messages)
        self._runs_now(key)
        if not self._runs:
            self._idle.fire(None)

    def _cancel(self, no: int, epoch: int) -> None:
        if (run := self._runs.get((no, epoch))) is not None:
            run.cancel()
        else:
            self._give_back([start for start in self._waiting if (start.no, start.epoch) == (no, epoch)])

    def _give_back(self, starts: Sequence[Start]) -> None:
        """These have not begun and will not."""
        if starts:
            for start in starts:
                self._waiting.remove(start)
            self._tell([Returned([(start.no, start.epoch) for start in starts])])
