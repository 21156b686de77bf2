"""Ends what must not outlive its maker: the daemon's own watchman, a process of its own that the daemon starts first.

Floor: none. A script, run by its path with `python -I -S`; it imports the standard library only. It must not import
jobsvc, must not die with the daemon, and must never kill the daemon or itself.

    guard.py BOOT

It reads commands from stdin and answers each with one line, `NUMBER KILLED`:

    clear NUMBER NODE     kill what earlier starts on this data directory have left
    sweep NUMBER WORKER   kill what one worker or command has left
    quit                  kill what this start has left, and exit; no answer

At the end of its input the daemon is gone, however it died: all that carries this boot's mark is killed, and once more
a second later, because a process may have been on its way.

Processes are found by the marks in their environment and by descent from a marked one. Each is killed through a pidfd
after mark and start time have been read again: a number that was given to another process meanwhile harms nobody.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

BOOT = b"JOBSVC_BOOT="
NODE = b"JOBSVC_NODE="
WORKER = b"JOBSVC_WORKER="
"""The marks, as `pool/launcher.py` sets them: a start of a daemon, its data directory, one worker or command."""

AGAIN_S = 1.0
"""After the daemon's death, until the second look: a process that was being started has its mark by then."""
WALKS_MAX = 50
"""How often growing prey is walked again: each walk stops all it finds, so a fork bomb dies out in a few."""
DEATH_S = 1.0
"""How long killed processes may take to end; one stuck in the kernel never runs its own code again anyhow."""
LOOK_S = 0.002
"""Pause between two looks whether they have ended."""
EXEC_LOOKS_MAX = 50
"""How often a process that is just becoming another program is looked at again: it shows no environment for some
microseconds, or as long as a busy machine makes it wait in that."""
COMMAND_BYTES = 65_536
STANDARD_MAX = 2
"""The last of stdin, stdout and stderr."""

Marks = frozenset[bytes]
Wanted = Callable[[Marks], bool]
Process = tuple[int, int]
"""Number and start time, in ticks since the machine started: together they name a process for good."""


def numbers() -> set[int]:
    """All processes of this moment."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - pathlib is slow to load


def marks_of(pid: int) -> Marks:
    """Our marks in the environment it was started with; none when it has ended or may not be looked at."""
    text = environment(pid)
    for _ in range(EXEC_LOOKS_MAX):
        if text is None or text:
            break
        becoming = in_exec(pid)
        text = environment(pid)  # also when it is over: that may have been since the last look
        if not becoming:
            break
        pause(LOOK_S)
    if text is None or BOOT not in text:
        return frozenset()  # nearly all of the machine's processes
    return frozenset(entry for entry in text.split(b"\0") if entry.startswith((BOOT, NODE, WORKER)))


def environment(pid: int) -> bytes | None:
    """What it was started with, for a moment of its start empty; None when it has ended or may not be looked at."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - as above
            return file.read()
    except OSError:
        return None


def in_exec(pid: int) -> bool:
    """Whether it is becoming another program at this very moment: it has memory, and no environment yet."""
    fields = stat(pid)
    return fields is not None and fields[20] != b"0" and fields[48] == b"0"


def stat(pid: int) -> list[bytes] | None:
    """Fields 3 and up of /proc/PID/stat; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as above
            # The command's name stands in brackets and may hold any character.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def birth(pid: int) -> tuple[int, int] | None:
    """When it was started, and its parent; None when it has ended, zombies among them."""
    fields = stat(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else (int(fields[19]), int(fields[1]))


def children(pid: int) -> list[int]:
    """Who has it as parent; none on kernels that do not tell (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as above
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123 - as above
                found += map(int, file.read().split())
    except OSError:
        return found  # it has ended meanwhile
    return found


def find(wanted: Wanted) -> list[Process]:
    """Those with wanted marks, and all that descend from them; never the daemon and never this process.

    A process may start another and end while the others are looked at, so the list is read again until it brings
    nothing new.
    """
    seen = {os.getpid(), os.getppid()}
    found: list[Process] = []
    while fresh := numbers() - seen:
        seen |= fresh
        prey = [(pid, 0) for pid in fresh if wanted(marks_of(pid))]
        for pid, parent in prey:  # grows while we go
            born = birth(pid)
            # Looked at a second time, now that its start is known: it is still the one that was found.
            if born is not None and (born[1] == parent or wanted(marks_of(pid))):
                found.append((pid, born[0]))
                below = [child for child in children(pid) if child not in (os.getpid(), os.getppid())]
                prey += [(child, pid) for child in below]
                seen.update(below)
    return list(dict.fromkeys(found))


def runs(process: Process) -> bool:
    """Whether this very process has not ended."""
    born = birth(process[0])
    return born is not None and born[0] == process[1]


def tell(process: Process, number: int) -> None:
    """Send a signal to this very process, if it still runs."""
    try:
        fd = os.pidfd_open(process[0])
    except OSError:
        return  # it has ended
    try:
        if runs(process):
            signal.pidfd_send_signal(fd, number)
    except OSError:
        return  # it has ended, or belongs to another user
    finally:
        os.close(fd)


def kill(wanted: Wanted) -> int:
    """Stop all that is found, look again until none is new, then kill the youngest first. How many there were."""
    held: list[Process] = []
    for _ in range(WALKS_MAX):
        fresh = [process for process in find(wanted) if process not in held]
        if not fresh:
            break
        for process in fresh:
            tell(process, signal.SIGSTOP)
        held += fresh
    # A process is younger than its parent.
    for process in sorted(held, key=lambda process: process[1], reverse=True):
        tell(process, signal.SIGKILL)
    left = held
    for _ in range(int(DEATH_S / LOOK_S)):
        left = [process for process in left if runs(process)]
        if not left:
            break
        pause(LOOK_S)
    return len(held)


def pause(seconds: float) -> None:
    """Nothing for so long; `time` need not be loaded for it."""
    select.select([], [], [], seconds)


def carrying(*marks: bytes, other_than: bytes | None = None) -> Wanted:
    """Processes with all of these marks, and without the other one."""
    return lambda carried: carried.issuperset(marks) and other_than not in carried


def serve(boot: str) -> None:
    """Do what stdin says until it ends or says quit."""
    mine = BOOT + boot.encode()
    rest = b""
    while data := os.read(0, COMMAND_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            match line.split(b" "):
                case [b"clear", number, node]:
                    answer(number, kill(carrying(NODE + node, other_than=mine)))
                case [b"sweep", number, worker]:
                    answer(number, kill(carrying(mine, WORKER + worker)))
                case [b"quit"]:
                    kill(carrying(mine))
                    return
    kill(carrying(mine))
    pause(AGAIN_S)
    kill(carrying(mine))


def answer(number: bytes, killed: int) -> None:
    """One command has been carried out."""
    try:
        os.write(1, b"%s %d\n" % (number, killed))
    except OSError:
        return  # the daemon is gone; the end of the input comes next


def close_others() -> None:
    """Keep nothing open that its maker had open: a port, a file on a disk that is to be unmounted."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        if int(name) > STANDARD_MAX:
            try:
                os.close(int(name))
            except OSError:
                continue  # it was that of the list itself


def main() -> None:
    """Run as a script: out of reach of a terminal's signals and of those that ask politely."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    close_others()
    os.setsid()
    os.chdir("/")  # no file system is kept busy by who only watches
    [boot] = sys.argv[1:]
    serve(boot)


if __name__ == "__main__":
    main()
