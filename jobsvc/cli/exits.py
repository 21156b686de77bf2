"""F5: exit codes, and which of them an error means. The list is part of the interface: `jobsvc --help` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobsvc.client.errors import ClientError

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_ALLOWED = 4
NOT_FOUND = 5
OVERLOADED = 6
TIMED_OUT = 124
INTERRUPTED = 130

MEANINGS = {
    OK: "done",
    FAILED: "the job failed, or any other error",
    USAGE: "wrong usage of the command",
    UNREACHABLE: "no daemon found, or it does not answer",
    NOT_ALLOWED: "no valid token, or not allowed",
    NOT_FOUND: "no such job or task, or its state does not allow this",
    OVERLOADED: "the daemon refused for load or is stopping: try later",
    TIMED_OUT: "the time to wait is over; the job goes on",
    INTERRUPTED: "interrupted; a job already submitted goes on",
}

_BY_STATUS = {
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: NOT_FOUND,
    409: NOT_FOUND,
    410: NOT_FOUND,
    412: NOT_FOUND,
    429: OVERLOADED,
    503: OVERLOADED,
    504: TIMED_OUT,
}


def code_of(error: ClientError) -> int:
    """The exit code for what the client raised."""
    from jobsvc.client.errors import Refused, Unreachable, WaitTimeout

    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, WaitTimeout):
        return TIMED_OUT
    if isinstance(error, Refused):
        # A task that does not exist is a wrong name like an unknown job, whatever its status.
        return NOT_FOUND if error.code == "no_such_task" else _BY_STATUS.get(error.status, FAILED)
    return FAILED


def table() -> str:
    """The codes as lines for the help."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
