"""F2: one run of a command: its lines as items and log, its exit as the outcome of the attempt.

The program reads /dev/null. With `text` each line of stdout is one item; a line above `ITEM_MAX_BYTES` is split there.
Without it each piece that was read is one item, in base64. Lines of stderr are log events. A program whose output is
not taken fast enough finds its pipe full and waits. The arguments were checked before they came here.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import UNSET
from twisted.logger import Logger

from jobsvc.model.argv import ArgvError, ArgvValue, placeholders, render_argv
from jobsvc.model.errors import Exit, JobError
from jobsvc.model.frames import Again, Begin, Items, Log, Message, Result, Start
from jobsvc.model.limits import ITEM_MAX_BYTES, STDERR_TAIL_BYTES, STREAM_WINDOW_BYTES
from jobsvc.model.task import NO_LIMITS, CommandSpec, TaskSpec
from jobsvc.pool.child import Child
from jobsvc.pool.descriptors import Inlet
from jobsvc.pool.exits import exit_within, exit_words
from jobsvc.pool.launcher import Launcher
from jobsvc.pool.limits import Over, ProgramLimits, launch_options, signalled
from jobsvc.pool.lines import Lines, item_body, log_body

OUT_STREAM = "out"
LOG_STREAM = "log"

EXIT_UNRUNNABLE = frozenset((125, 126, 127))
"""Exit statuses by which the launcher (and every shell) says that the program could not be run at all."""

SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM))
"""Reasons for which no process is to be had just now: descriptors, processes or memory are used up."""

REQUEST_ID_VARIABLE = "JOBSVC_REQUEST_ID"
TRACEPARENT_VARIABLE = "TRACEPARENT"
"""By the common convention, so that a traced program goes on with the trace of who submitted the job."""

_values = msgspec.json.Decoder(dict[str, ArgvValue] | list[ArgvValue])


class Outflow:
    """One stream of the run: what was sent and not yet stored, and the pipe that waits for it."""

    __slots__ = ("inlet", "owed_bytes")

    def __init__(self) -> None:
        self.inlet: Inlet | None = None
        self.owed_bytes = 0

    def sent(self, size: int) -> None:
        """So much more is on its way to the store."""
        self.owed_bytes += size
        if self.owed_bytes > STREAM_WINDOW_BYTES and self.inlet is not None:
            self.inlet.pause()

    def credit(self, size: int) -> None:
        """So much of it has been stored."""
        self.owed_bytes = max(0, self.owed_bytes - size)
        if self.owed_bytes <= STREAM_WINDOW_BYTES and self.inlet is not None:
            self.inlet.resume()


class CommandRun:
    """See the module.

    Args:
        on_started: told when the program runs.
        on_scarce: told, in place of an end, when nothing was started because there is no room for a process just now.
        tell: takes messages of the attempt while it runs.
        on_ended: takes the last ones, the `Result` among them, once.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        start: Start,
        launcher: Launcher,
        monotonic: Callable[[], float],
        now_us: Callable[[], int],
        on_started: Callable[[], None],
        on_scarce: Callable[[OSError], None],
        tell: Callable[[Sequence[Message]], None],
        on_ended: Callable[[Sequence[Message]], None],
    ) -> None:
        self._start = start
        self._launcher = launcher
        self._monotonic = monotonic
        self._now_us = now_us
        self._on_started = on_started
        self._on_scarce = on_scarce
        self._tell = tell
        self._on_ended = on_ended
        self._spec: CommandSpec | None = None
        self._child: Child | None = None
        self._began_us = 0
        self._began = 0.0
        self._asked = False  # to stop
        self._limits = NO_LIMITS
        self._look: ProgramLimits | None = None
        self._over: Over | None = None  # the limit for which we have ended it
        self._flows = {OUT_STREAM: Outflow(), LOG_STREAM: Outflow()}
        self._out = Lines(ITEM_MAX_BYTES)
        self._err = Lines()
        self._tail = b""

    def begin(self, task: TaskSpec | None) -> None:
        """Start the program; None: a reload has taken the task away."""
        self._count()
        spec = None if task is None else task.command
        if task is None or spec is None:
            self._end(JobError("rejected", message=f"{self._start.task} is no command any more"))
            return
        self._spec = spec
        launcher = self._launcher
        self._limits = limits = task.limits.over(launcher.limits)
        try:
            argv = render_argv(spec.argv, self._arguments(spec.argv))
            self._child, self._flows[OUT_STREAM].inlet, self._flows[LOG_STREAM].inlet = launcher.start(
                argv, self._printed_out, self._printed_err, self._exited,
                on_started=self._started, mark=f"command-{self._start.no}-{self._start.epoch}",
                options=("--subreaper", *launch_options(limits)), cwd=spec.cwd, env=_environment(self._start, spec.env),
            )  # fmt: skip
        except (ArgvError, msgspec.DecodeError) as error:
            self._end(JobError("rejected", message=str(error)))
        except OSError as error:
            self._not_started(error)

    def _count(self) -> None:
        """Its time counts from now."""
        self._began_us, self._began = self._now_us(), self._monotonic()

    def _started(self) -> None:
        """The program runs."""
        assert self._child is not None
        assert self._child.pid is not None
        self._count()
        self._look = ProgramLimits(self._launcher.usage, self._child.pid, self._limits, self._is_over)
        self._tell([Begin(self._start.no, self._start.epoch, self._began_us)])
        self._on_started()

    def _arguments(self, argv: Sequence[str]) -> Mapping[str, ArgvValue]:
        """By placeholder; an array fills them in the order of their first use."""
        values = _values.decode(self._start.body)
        return values if isinstance(values, dict) else dict(zip(placeholders(argv), values, strict=False))

    # -- what it says

    def _printed_out(self, data: bytes) -> None:
        assert self._spec is not None
        if not self._spec.text:
            self._items(1, b'"' + base64.b64encode(data) + b'"')
        elif lines := self._out.feed(data):
            self._items(len(lines), item_body(lines))

    def _items(self, count: int, body: bytes) -> None:
        self._flows[OUT_STREAM].sent(len(body))
        self._tell([Items(self._start.no, self._start.epoch, OUT_STREAM, count, 0, body)])

    def _printed_err(self, data: bytes) -> None:
        self._tail = (self._tail + data[-STDERR_TAIL_BYTES:])[-STDERR_TAIL_BYTES:]
        if lines := self._err.feed(data):
            self._logged(lines)

    def _logged(self, lines: list[bytes]) -> None:
        body = log_body(lines, "stderr")
        self._flows[LOG_STREAM].sent(len(body))
        self._tell([Log(self._start.no, self._start.epoch, len(lines), 0, body)])

    # -- what it is told

    def credit(self, stream: str, size: int) -> None:
        """So many bytes of a stream have been stored."""
        if (flow := self._flows.get(stream)) is not None:
            flow.credit(size)

    def cancel(self) -> None:
        """Ask the program and its group to end."""
        self._asked = True
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        """End it and all that it has started."""
        self._asked = True
        if self._child is not None:
            self._child.kill()

    def _is_over(self, over: Over) -> None:
        if self._child is None or not self._child.alive:
            return  # it has just ended by itself; what was looked at may be another's
        self._log.warn(
            "{task} is killed: {words}", task=self._start.task, words=over.words, action="over_limit"
        )
        self._over = over
        self._child.kill()

    # -- its end

    def _exited(self, end: Exit | OSError) -> None:
        assert self._spec is not None
        if isinstance(end, OSError):
            self._not_started(end)
            return
        if self._look is not None:
            self._look.stop()
        if self._launcher.prefix and end.code not in self._spec.ok_codes:
            end = exit_within(end)
        if rest := self._out.rest():
            self._items(1, item_body(rest))
        if rest := self._err.rest():
            self._logged(rest)
        if end.code in self._spec.ok_codes:
            self._end(None, msgspec.json.encode({"code": end.code}))
        elif self._asked:
            self._end(
                JobError(
                    "cancelled", message=f"the command {exit_words(end)} after it was asked to stop", exit=end
                )
            )
        else:
            self._end(self._died(end), again=self._again(end))

    def _not_started(self, error: OSError) -> None:
        """There is no process: nothing of the program has run."""
        assert self._spec is not None
        if error.errno in SCARCE and not self._asked:
            self._on_scarce(error)
        else:
            words = f"{self._spec.argv[0]} could not be started: {error}"
            self._end(JobError("cancelled" if self._asked else "crashed", message=words))

    def _again(self, end: Exit) -> Again | None:
        """What its exit code says about another try; a signal says nothing."""
        assert self._spec is not None
        codes = self._spec.retry_codes
        return None if codes is None or end.code is UNSET or end.code in codes else Again("never")

    def _died(self, end: Exit) -> JobError:
        """Nobody asked it to end, and it did not end well."""
        killed = end.name == "SIGKILL"
        over = self._over if killed and self._over is not None else signalled(self._limits, end)
        if over is not None:
            if over.oom:
                end.oom = True
            return JobError("crashed", message=over.words, exit=end)
        if killed and self._launcher.oom.killed():
            end.oom = True
            return JobError("crashed", message="the kernel ended it for want of memory", exit=end)
        # As with workers: who sent that SIGKILL is not known, and the program is not to blame.
        return JobError("lost" if killed else "crashed", message=self._words(end), exit=end)

    def _words(self, end: Exit) -> str:
        """What went wrong: the last words of the program, else how it ended."""
        assert self._spec is not None
        tail = self._tail.decode(errors="replace").strip()
        name = self._spec.argv[0]
        if end.code in EXIT_UNRUNNABLE and tail:
            return f"{name}: {tail}"
        return tail or f"{name} {exit_words(end)}"

    def _end(self, error: JobError | None, body: bytes = b"", again: Again | None = None) -> None:
        start = self._start
        run_s = self._monotonic() - self._began
        self._on_ended([Result(start.no, start.epoch, self._began_us, run_s, error, 0, body, again)])


def _environment(start: Start, env: Mapping[str, str]) -> dict[str, str]:
    """The task's variables, and what the request that made the job was called."""
    request_id, traceparent = start.origin or (None, None)
    named = {REQUEST_ID_VARIABLE: request_id, TRACEPARENT_VARIABLE: traceparent}
    return {**env, **{name: value for name, value in named.items() if value is not None}}
