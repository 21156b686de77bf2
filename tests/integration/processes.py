"""Child processes of integration tests: their output as it comes, and who is still alive."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import IO

WAKE_S = 0.05
"""How often a condition is looked at again while a child prints nothing."""

LOG_TAIL_LINES = 200
"""How much of the log a failing test shows."""

READER_DEADLINE_S = 5.0
"""How long grandchildren may hold the output pipe of a child that has ended."""


class OutputLog:
    """Lines of a child's output, read by a thread; who waits is woken by each line and by the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, name="daemon-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def text(self) -> str:
        """All that was printed so far."""
        with self._changed:
            return "\n".join(self._lines)

    def tail(self) -> str:
        """The last lines, for the message of a failing test."""
        return "\n".join(self.text.splitlines()[-LOG_TAIL_LINES:])

    def wait_change(self) -> None:
        """Wait for a new line, at most WAKE_S."""
        with self._changed:
            self._changed.wait(WAKE_S)

    def finish(self) -> None:
        """Take in the last lines of a child that ended; its children may hold the pipe a little longer."""
        self._reader.join(READER_DEADLINE_S)
        if not self._reader.is_alive():
            self._stream.close()


def processes_in(folder: Path) -> list[int]:
    """Pids of the living processes that work in ``folder`` or below: daemon, workers, their children."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            cwd = (entry / "cwd").readlink()
        except OSError:  # ended meanwhile, a zombie, or not ours to look at
            continue
        if cwd.is_relative_to(folder):
            pids.append(int(entry.name))
    return sorted(pids)


def state_of(pid: int) -> tuple[str, int]:
    """The state of a process as one letter, X when it is gone, and its parent's pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    """Whether a process runs, or could: it is there and no zombie."""
    return state_of(pid)[0] not in "ZX"


def zombies_of(*parents: int) -> list[int]:
    """Ended children for which these processes have not asked."""
    found = [
        (int(entry.name), state_of(int(entry.name)))
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
    ]
    return [pid for pid, (state, parent) in found if state == "Z" and parent in parents]


def command_line(pid: int) -> str:
    """The command line of a process, for messages."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(ended meanwhile)"


def kill_process(pid: int) -> None:
    """SIGKILL; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # ended meanwhile: what was wanted
