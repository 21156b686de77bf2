"""F2: how a process ended: read from the kernel's status, told apart where a launcher prefix hides it, in words."""

from __future__ import annotations

import os
import signal

from msgspec import UNSET

from jobsvc.model.errors import Exit

SIGNAL_STATUS = 128
"""A shell adds it to the signal by which its child has ended."""


def exit_of(status: int) -> Exit:
    """How a process ended, from what waitpid(2) says of it."""
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else _by_signal(-code)


def exit_within(end: Exit) -> Exit:
    """How the program behind a launcher prefix ended: one that waits for it, as shells and bwrap do, tells a signal by
    its own exit status.
    """  # fmt: skip
    if end.code is UNSET or not SIGNAL_STATUS < end.code < SIGNAL_STATUS + signal.NSIG:
        return end
    return _by_signal(end.code - SIGNAL_STATUS)


def _by_signal(number: int) -> Exit:
    # Only SIGKILL can have come from a kernel that ran out of memory; from here it looks like any other.
    return Exit(signal=number, name=_signal_name(number), oom=None if number == signal.SIGKILL else False)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal


def exit_words(end: Exit | None) -> str:
    """The same for people."""
    if end is None:
        return "could not be started"
    return f"was ended by {end.name}" if end.signal is not UNSET else f"exited with status {end.code}"
