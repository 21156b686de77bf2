"""F1: a start that cannot go on: one line where a person looks, whichever launcher there is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TextIO


def found(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """The launcher prefix with the whole path of its program, which is looked for where the daemon is started.

    Raises:
        StartRefused: it is not there, or cannot be run.
    """
    if not prefix:
        return ()
    program = shutil.which(prefix[0])
    if program is None:
        raise refusal(
            f"--launcher-prefix: there is no program {prefix[0]!r} that can be run; install it, or give its whole path"
        )
    return (str(Path(program).absolute()), *prefix[1:])


class StartRefused(SystemExit, Exception):
    """The end of a start that cannot go on. An `Exception` too: only of those a twistd in the background tells the one
    who waits at the terminal, and removes its pid file.
    """  # fmt: skip


def refusal(words: str) -> StartRefused:
    """What to raise. Where twistd's log has taken the place of sys.stderr, Python would write the words into that; a
    person looks elsewhere.
    """  # fmt: skip
    line = f"jobsvc: {words}"
    if sys.stderr is not terminal():
        terminal().write(line + "\n")
        terminal().flush()
    return StartRefused(line)


def terminal() -> TextIO:
    """Where a person looks: twistd has put its log in the place of sys.stderr."""
    return sys.__stderr__ if sys.__stderr__ is not None else sys.stderr
