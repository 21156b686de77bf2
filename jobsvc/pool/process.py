"""F2: one worker process: its channel, its pipes, its mark, its pulse; what the engine knows as a `Worker`.

It tells what happens to it and does what it is told; when to start, replace or retire one is the slot's matter.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from jobsvc.model.errors import Exit
from jobsvc.model.frames import (
    PROTO,
    Credit,
    Hello,
    Loading,
    Log,
    Manifest,
    Message,
    Ping,
    Pong,
    Quit,
    Result,
)
from jobsvc.model.task import NO_LIMITS
from jobsvc.pool import tree, usage
from jobsvc.pool.channel import Channel
from jobsvc.pool.child import Child
from jobsvc.pool.exits import exit_within, exit_words
from jobsvc.pool.launcher import Launcher
from jobsvc.pool.limits import Over
from jobsvc.pool.mark import Mark
from jobsvc.pool.plan import CHANNEL_FD, MARK_FD, Plan
from jobsvc.pool.printed import Printed
from jobsvc.pool.pulse import Pulse
from jobsvc.pool.worker_limits import WorkerLimits, own_limits
from jobsvc.ports import Death, WorkerKind

START_S = 30.0
"""From the start to the first import, and for the import of each task module: some import whole frameworks."""
QUIT_S = 5.0
"""From `Quit` to the kill: nothing that counts runs any more, but a given-up thread may hold the process."""
SILENT_EXIT_S = 1.0
"""From the end of the channel to the kill: a process that exits closes its descriptors a moment before it is reaped."""


class Owner(Protocol):
    """Who is told what becomes of a worker process: its slot."""

    def loaded(self, manifest: Manifest) -> None:
        """It has sent its manifest, which may say that a module did not load."""

    def broken(self, why: str) -> None:
        """It is no use: it speaks another version, or has not sent its manifest in time."""

    def messages(self, messages: Sequence[Message]) -> None:
        """Messages of attempts."""

    def asked_to_quit(self) -> None:
        """The engine has no more use for it."""

    def ended(self, death: Death) -> None:
        """It is gone, and everything it said has been told."""


_OURS = frozenset((Hello, Loading, Manifest, Pong))


class WorkerProcess:
    """See the module; implements `ports.Worker`.

    Args:
        started_us: wall clock, for people.
        monotonic: for the heartbeat.
        owner: told in this order: `loaded` or `broken`, any `messages`, `ended` once.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        worker_id: str,
        plan: Plan,
        launcher: Launcher,
        started_us: int,
        monotonic: Callable[[], float],
        owner: Owner,
    ) -> None:
        self.id = worker_id
        self.kind: WorkerKind = plan.kind
        self.slots: Mapping[str, int] = plan.slots
        self.started_us = started_us
        self.lacks: frozenset[str] = frozenset()
        self.loading: str | None = None
        """The module it imports now, or died in."""
        self._plan = plan
        self._launcher = launcher
        self._owner = owner
        self._fate: Literal["killed", "stalled", "lost", "quit"] | None = None  # why we end it
        self._inside = 0  # its number as it knows it itself
        self._limits: WorkerLimits | None = None  # where its tasks have any
        self._mark: Mark | None = None
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._timer: IDelayedCall | None = None
        self._pipes = select.poll()  # one call tells that nothing was printed, where two reads would fail
        self._announced = False  # its manifest has come
        self._pinged = False  # a cpu worker was asked for a sign of life
        self._printed = [
            Printed(worker_id, source, self._runs, self._began, self._printed_log)
            for source in ("stdout", "stderr")
        ]
        self._pulse = Pulse(launcher.clock, monotonic, self._feel, self._stalled)

    # -- life

    def start(self) -> None:
        """Start the process. One that is not to be had is told as an end.

        Raises:
            OSError: no descriptor is to be had; nothing is told.
        """
        launcher = self._launcher
        ours, theirs = socket.socketpair()
        out, err = self._printed
        begin_mark: Mark | None = None
        try:
            begin_mark = Mark()
            self._child, out.inlet, err.inlet = launcher.start(
                self._plan.argv(),
                out.feed,
                err.feed,
                self._ended,
                mark=self.id,
                options=(*self._subreaper(), "--channel", str(CHANNEL_FD), "--mark", str(MARK_FD)),
                descriptors=(theirs.fileno(), begin_mark.fd),
            )
        except BaseException:
            ours.close()
            if begin_mark is not None:
                begin_mark.close()
            raise
        finally:
            theirs.close()
        begin_mark.close_fd()
        if self.kind == "cpu":
            out.inlet.before_read = out.look
            err.inlet.before_read = err.look
            for inlet in (out.inlet, err.inlet):
                self._pipes.register(inlet.fileno(), select.POLLIN)
        self._mark = begin_mark
        self._channel = Channel(launcher.reactor, launcher.clock, ours.detach(), self._received, self._silent)
        self._child.watch(self._channel)
        self._arm(START_S, self._late)

    def _subreaper(self) -> tuple[str, ...]:
        """A cpu worker becomes the parent of what its attempts orphan, and clears it away between two of them. An io
        worker would only gather zombies: it cannot tell whose they are.
        """  # fmt: skip
        return ("--subreaper",) if self.kind == "cpu" else ()

    def ready(self) -> None:
        """It serves from now on."""
        self._pulse.start()

    @property
    def pid(self) -> int | None:
        """Its process number while it runs."""
        return None if self._child is None else self._child.pid

    def _arm(self, seconds: float, call: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._launcher.clock.callLater(seconds, call)

    def _disarm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _late(self) -> None:
        self._owner.broken(
            f"it has not sent its manifest within {START_S:g} s of its start"
            if self.loading is None
            else f"module {self.loading} has not loaded within {START_S:g} s: its import hangs"
        )

    # -- what it says

    def _received(self, messages: list[Message]) -> None:
        # Every job comes this way: a cpu worker that has announced itself says nothing to the pool unless it is asked.
        if not self._announced or self._pinged or self.kind == "io":
            messages = [
                message for message in messages if type(message) not in _OURS or not self._handled(message)
            ]
        elif self._pipes.poll(0) or any(printed.holding for printed in self._printed):
            for message in messages:
                if isinstance(message, Result):
                    # What it printed before this end comes before this end, whichever pipe is read first.
                    self._finish_printed((message.no, message.epoch))
        if messages:
            if self._limits is not None:
                self._limits.heard(messages)
            self._owner.messages(messages)

    def _handled(self, message: Message) -> bool:
        if isinstance(message, Pong):
            self._pinged = False
            self._pulse.heard()
        elif isinstance(message, Manifest):
            if not self._announced:
                self._announced = True
                self.loading = None
                self._disarm()
                self._limit(message)
                self._owner.loaded(message)
        elif isinstance(message, Loading):
            if not self._announced and self._fate is None:
                self.loading = message.module
                self._arm(START_S, self._late)
        elif isinstance(message, Hello):
            if self._announced:
                return True
            self._inside = message.pid
            if message.proto != PROTO or message.boot != self._plan.boot:
                self._owner.broken(
                    f"it speaks protocol {message.proto} of boot {message.boot}: another version of jobsvc"
                )
        else:
            return False
        return True

    def _finish_printed(self, attempt: tuple[int, int] | None) -> None:
        for printed in self._printed:
            printed.finish(attempt)

    def _printed_log(self, log: Log) -> None:
        self._owner.messages([log])

    def printed_tail(self) -> str:
        """The last words on stderr, for the error of one that did not start."""
        return self._printed[1].tail()

    # -- what it is told

    def send(self, messages: Sequence[Message]) -> None:
        """See `ports.Worker`."""
        if any(printed.owing for printed in self._printed):
            messages = self._own_credit(messages)
        if self._limits is not None and self.pid is not None:
            self._limits.before(messages)
        if self._channel is not None and messages:
            self._channel.send(messages)

    def _own_credit(self, messages: Sequence[Message]) -> list[Message]:
        """Credit for what was read from the pipes stays here; the worker gets what it sent itself."""
        left: list[Message] = []
        for message in messages:
            rest: Message | None = message
            for printed in self._printed:
                if isinstance(rest, Credit):
                    rest = printed.settle(rest)
            if rest is not None:
                left.append(rest)
        return left

    def running(self) -> tuple[int, int, int] | None:
        """See `ports.Worker`."""
        return self._mark.read() if self._mark is not None and self.kind == "cpu" else None

    def _runs(self) -> tuple[int, int] | None:
        now = self.running()
        return None if now is None else now[:2]

    def _began(self) -> tuple[tuple[int, int], int]:
        """What began last, and how many have begun; of an io worker nobody can say whose text a pipe holds."""
        return self._mark.latest() if self._mark is not None and self.kind == "cpu" else ((0, 0), 0)

    def kill(self, no: int, epoch: int) -> bool:
        """See `ports.Worker`; only a cpu worker that runs this very attempt is killed."""
        if self.kind != "cpu" or self._runs() != (no, epoch):
            return False
        self.destroy("killed")
        return True

    def quit(self) -> None:
        """See `ports.Worker`."""
        self._owner.asked_to_quit()

    def dismiss(self) -> None:
        """Let it exit, and kill it when it does not."""
        self._pulse.stop()
        self.send([Quit()])
        self._fate = self._fate or "quit"
        self._arm(QUIT_S, self._not_gone)

    def _not_gone(self) -> None:
        self._log.info("{worker} does not exit: killed", worker=self.id, action="worker_quit_killed")
        self.destroy("quit")

    def destroy(self, fate: Literal["killed", "stalled", "lost", "quit"]) -> None:
        """Kill it with all that it has started; `fate` is what its death will be called."""
        self._pulse.stop()
        self._disarm()
        if self._child is not None and self._child.alive:
            self._fate = self._fate or fate
            self._child.kill()

    # -- what it may use

    @property
    def code_pids(self) -> list[int]:
        """The process that runs the code; behind a launcher prefix that hides which it is, all of its tree."""
        pid = self.pid
        if pid is None or not self._launcher.prefix:
            return [] if pid is None else [pid]
        return usage.known_as(pid, self._inside)

    def _limit(self, manifest: Manifest) -> None:
        defaults = self._launcher.limits
        own = own_limits(manifest.tasks, defaults)
        if self.kind == "cpu" and self.pid is not None and (own or defaults != NO_LIMITS):
            self._limits = WorkerLimits(
                self._launcher.usage,
                root=self.pid, pids=self.code_pids, defaults=defaults, own=own, running=self._runs,
                over=self._is_over,
            )  # fmt: skip

    def _is_over(self, over: Over) -> None:
        self._log.warn("{worker} is killed: {words}", worker=self.id, words=over.words, action="over_limit")
        self.destroy("killed")

    # -- its end

    def _feel(self, n: int) -> None:
        """A sign of life is wanted: an answer of the loop; of a cpu worker one only while it says that it runs nothing,
        since the code it runs may rightly hold its interpreter for hours. That must just not be stopped by a signal.
        """  # fmt: skip
        if self.kind == "io":
            self.send([Ping(n)])
        elif any(map(tree.stopped, self.code_pids)):
            return
        elif self.running() is None:
            # A task may have put something else in the place of the channel: what is sent to it is lost then.
            self._pinged = True
            self.send([Ping(n)])
        else:
            self._pulse.heard()

    def _stalled(self) -> None:
        mute = self.kind == "cpu" and not any(map(tree.stopped, self.code_pids))
        words = "does not answer" if self.kind == "io" or mute else "was stopped by a signal"
        self._log.error("{worker} {words}: killed", worker=self.id, words=words, action="worker_stalled")
        self.destroy("lost" if mute else "stalled")

    def _silent(self) -> None:
        """The channel has come to its end; usually the process is about to be reaped."""
        assert self._child is not None
        assert self._channel is not None
        if self._child.alive:
            if self._channel.broken:
                self.destroy("lost")
            else:
                self._arm(SILENT_EXIT_S, lambda: self.destroy("lost"))
        self._child.inlet_ended()

    def _ended(self, end: Exit | OSError) -> None:
        self._pulse.stop()
        self._disarm()
        assert self._mark is not None
        mark = self._mark.read()
        attempt = None if mark is None else mark[:2]
        # One that has ended here counts as well: if its result has not come, it was lost on its way.
        last = self._mark.last() if self.kind == "cpu" else mark
        self._finish_printed(attempt if self.kind == "cpu" else None)
        self._mark.close()
        self._mark = None
        if isinstance(end, OSError):
            self._log.error(
                "no process for {worker}: {error}", worker=self.id, error=end, action="spawn_failed"
            )
            self._owner.ended(Death("exit", None))
            return
        if self._launcher.prefix:
            end = exit_within(end)
        limit = None if self._limits is None else self._limits.ended(end, attempt)
        how = self._how(end)
        if self._fate in (None, "lost") and end.name == "SIGKILL" and self._launcher.oom.killed():
            end.oom = True
        if limit is not None or (end.oom is True and self.kind == "cpu" and attempt is not None):
            how = "exit"  # by its attempt's own doing
        self._log.info(
            "{worker} {words}",
            worker=self.id, words=exit_words(end), how=how, running=attempt, action="worker_ended",
        )  # fmt: skip
        if last is None or (self.kind == "io" and how not in ("stalled", "exit")):
            self._owner.ended(Death(how, end, limit=limit))
        else:
            self._owner.ended(Death(how, end, last[:2], last[2], limit))

    def _how(self, end: Exit) -> Literal["exit", "killed", "stalled", "lost", "quit"]:
        if self._fate is not None and (end.name == "SIGKILL" or self._fate in ("quit", "lost")):
            return self._fate
        return "lost" if end.name == "SIGKILL" else "exit"
