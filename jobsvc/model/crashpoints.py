"""F0: the named moments at which a test makes the daemon die, as by `kill -9`; without that wish they do nothing.

The environment variable `JOBSVC_CRASH` is read once, at import: `CP5` dies at the first passage of that point, `CP5:3`
at the third. Which points there are, and where, is one table; a test holds the code to it.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from typing import Final, NamedTuple

VARIABLE: Final = "JOBSVC_CRASH"
STDERR_FD: Final = 2
_WISH: Final = re.compile(r"(CP[0-9]+)(?::([1-9][0-9]{0,8}))?")


class Point(NamedTuple):
    """One crash point: the module that passes it, below `jobsvc`, and what is true at that moment."""

    module: str
    moment: str


POINTS: Final[Mapping[str, Point]] = {
    "CP1": Point("engine/engine.py", "a submit is checked, nothing of it is stored"),
    "CP2": Point("store/submitting.py", "its rows are inserted, not committed"),
    "CP3": Point("engine/engine.py", "it is committed, the client has not heard of it"),
    "CP4": Point("http/api_jobs.py", "half of its reply has been written"),
    "CP5": Point("engine/dispatch.py", "a claim is committed, the worker has not been told"),
    "CP6": Point("pool/spawn.py", "a process has been started, and nothing more is known of it"),
    "CP7": Point("engine/intake.py", "an attempt has begun"),
    "CP8": Point("engine/endings.py", "an outcome has arrived, and is not on its way to the store"),
    "CP9": Point("store/fenced.py", "an outcome is written, not committed"),
    "CP10": Point("engine/endings.py", "an outcome is committed, nobody has been told"),
    "CP12": Point("store/fenced.py", "a retry is written, not committed"),
    "CP13": Point("store/recovery.py", "what was interrupted is put back, not committed"),
    "CP14": Point("store/migrating.py", "a migration is written, not committed"),
    "CP15": Point("service.py", "a drain has begun, nothing is claimed any more"),
    "CP16": Point("store/connection.py", "the last checkpoint is written, the database is still open"),
    "CP17": Point("store/migrating.py", "a copy of the database is written, and has not got its name"),
    "CP18": Point("store/changes.py", "old jobs are removed, not committed"),
}
"""By name. CP11 (artifact renamed, its row missing) comes with artifacts."""


def read_wish(text: str) -> tuple[str | None, int]:
    """The point named in `VARIABLE` (None: none) and at which passage to die, from 1.

    Raises:
        SystemExit: there is no such point; says which there are.
    """
    if not text:
        return None, 0
    match = _WISH.fullmatch(text)
    if match is None or match[1] not in POINTS:
        raise SystemExit(
            f"jobsvc: {VARIABLE}={text}: not a crash point; unset it, or use one of {', '.join(POINTS)},"
            " with :N for the N-th passage"
        )
    return match[1], int(match[2] or 1)


_armed, _left = read_wish(os.environ.get(VARIABLE, ""))


def crash(point: str) -> None:
    """Die here, if that was wished."""
    if point == _armed and due(point):
        die()


def due(point: str) -> bool:
    """Whether this passage is the one to die at: for a point that has something to do before it calls `die`."""
    global _left  # noqa: PLW0603 - the countdown belongs to the process, as the variable does
    if point != _armed:
        return False
    _left -= 1
    return _left == 0


def die() -> None:
    """End the process as `kill -9` would, with a line on stderr that tells it from one."""
    os.write(STDERR_FD, f"jobsvc: crash point {_armed}: {VARIABLE} asked for it\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
