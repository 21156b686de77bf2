"""F5: a job watched to its end: logs and progress on standard error, the result on standard output."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from jobsvc.cli import exits

if TYPE_CHECKING:
    from jobsvc.cli.shell import Shell
    from jobsvc.client.shapes import Job


class Meter(Protocol):
    """Shows how far a job is."""

    def log(self, text: str) -> None:
        """A line beside the bar."""

    def at(self, n: float | None, of: float | None, note: str | None) -> None:
        """`n` of `of`."""


class _Lines:
    """Progress as lines, where nothing can be drawn."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def log(self, text: str) -> None:
        self._shell.note(text)

    def at(self, n: float | None, of: float | None, note: str | None) -> None:
        self._shell.note(f"progress {progress_text(n, of, note)}")


def progress_text(n: float | None, of: float | None, note: str | None) -> str:
    """`3/10 note`, as far as it is known."""
    place = "" if n is None else f"{n:g}" if of is None else f"{n:g}/{of:g}"
    return " ".join(part for part in (place, note) if part)


def log_text(data: Any) -> str:
    """One log event as a line: the message, then its fields; the level unless it is the usual one."""
    level = data.get("level", "info")
    fields = " ".join(f"{name}={value}" for name, value in (data.get("fields") or {}).items())
    head = "" if level == "info" or data.get("source") in ("stdout", "stderr") else f"{level}: "
    return " ".join(part for part in (f"{head}{data.get('message', '')}", fields) if part)


def meter(shell: Shell, title: str) -> AbstractContextManager[Meter]:
    """A bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        return nullcontext(_Lines(shell))
    from jobsvc.cli.drawing import bar

    return bar(title)


class _TimeUp(Exception):
    """Raised by the alarm."""


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `_TimeUp` here after so many seconds, wherever the process waits; as `timeout(1)` does."""
    if seconds is None:
        yield
        return

    def ring(_number: int, _frame: object) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def watch(shell: Shell, job: Job, wait_s: float | None = None) -> int:
    """Show what a job says until it is done, then print its result. Answers `exits.OK`.

    Raises `JobFailed` when there is no result, `WaitTimeout`.
    """
    from jobsvc.client.errors import ClientError, WaitTimeout

    try:
        with _alarm(wait_s), meter(shell, job.task) as shown:
            end = _last(shell, job.id, shown)
    except _TimeUp:
        raise WaitTimeout(shell.client.get(job.id), wait_s or 0.0) from None
    except KeyboardInterrupt:
        shell.note(f"job {job.id} goes on; jobsvc result {job.id} --wait waits for it again")
        raise
    if end is None:
        raise ClientError(f"the events of job {job.id} ended without its outcome")
    return settled(shell, end)


def settled(shell: Shell, end: Any) -> int:
    """Print the result of a job that is done (`end`: its JSON). Raises `JobFailed`."""
    import msgspec

    from jobsvc.client.replies import result_of
    from jobsvc.client.shapes import Job

    shell.value(result_of(msgspec.convert(end, Job)))
    return exits.OK


def _last(shell: Shell, job_id: str, shown: Meter) -> Any:
    for event in shell.client.events(job_id, kinds=("log", "progress", "end")):
        if event.kind == "log":
            shown.log(log_text(event.data))
        elif event.kind == "progress":
            shown.at(event.data.get("n"), event.data.get("of"), event.data.get("note"))
        elif event.kind == "end":
            return event.data
    return None
