"""Prepares a fresh process and becomes the program asked for: every worker and every command starts through here.

Floor: none. A script, run by its path with `python -I -S`; it imports the standard library only, and of that only
what loads fast, so that it costs about 4 ms over a bare interpreter. It must not import jobsvc.

    launch.py --parent PID [--subreaper] [--channel FD] [--mark FD] [--rlimit NAME=SOFT[:HARD]]... [--umask OCT]
              [--chdir DIR] -- PROGRAM [ARGUMENT]...

In this order: own session, death with the parent, parent of orphaned descendants (`--subreaper`), default signals,
descriptors, limits, umask, folder, exec. The environment is what it was given itself; of the descriptors the program
has the standard ones and those that `--channel` and `--mark` name. posix_spawn has no hook for most of this.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h. The setting survives exec; it is cleared for the children of the process."""
PR_SET_CHILD_SUBREAPER = 36
"""The same. Descendants that lose their parent become our children, so nothing leaves the tree by forking twice."""
SIGKILL = 9
"""The signals stand here as numbers: importing `signal` builds its enums and costs 8 ms."""
SIGNALS = range(1, 32)
"""The standard ones. Python ignores SIGPIPE, and what is ignored stays so through exec: commands would misbehave."""
SIG_SETMASK = 2
SIGSET_BYTES = 128
"""Size of glibc's and musl's sigset_t."""

STANDARD_MAX = 2
"""The last of stdin, stdout and stderr."""

EXIT_LAUNCH = 125
"""The launcher itself failed: a bad option, a limit that cannot be set, a folder that is not there."""
EXIT_NOT_RUNNABLE = 126
"""The program is there but cannot be run; like the shells say it."""
EXIT_NOT_FOUND = 127
"""No such program; like the shells say it."""
EXIT_ORPHANED = 124
"""The parent was gone before its death could be watched."""


class LaunchError(Exception):
    """Why the program was not started, in one line, and the exit status that says so."""

    def __init__(self, detail: str, status: int = EXIT_LAUNCH) -> None:
        super().__init__(detail)
        self.status = status


class Plan:
    """What the command line asks for."""

    __slots__ = ("argv", "chdir", "keep", "parent", "rlimits", "subreaper", "umask")

    def __init__(self) -> None:
        self.parent: int | None = None
        self.keep: list[int] = []
        self.rlimits: list[str] = []
        self.subreaper = False
        self.umask: int | None = None
        self.chdir: str | None = None
        self.argv: list[str] = []


def read_plan(words: list[str]) -> Plan:
    """The plan in these command line words.

    Raises:
        LaunchError: an option or value that is not understood, no parent, no program.
    """
    plan = Plan()
    at = 0
    while at < len(words) and words[at] != "--":
        if words[at] == "--subreaper":
            plan.subreaper = True
            at += 1
            continue
        if at + 1 == len(words):
            raise LaunchError(f"{words[at]} needs a value")
        _option(plan, words[at], words[at + 1])
        at += 2
    plan.argv = words[at + 1 :]
    if plan.parent is None or not plan.argv:
        raise LaunchError("needs --parent PID and, after --, a program")
    return plan


def _option(plan: Plan, name: str, value: str) -> None:
    try:
        if name == "--parent":
            plan.parent = int(value)
        elif name in ("--channel", "--mark"):
            plan.keep.append(int(value))
        elif name == "--rlimit":
            plan.rlimits.append(value)
        elif name == "--umask":
            plan.umask = int(value, 8)
        elif name == "--chdir":
            plan.chdir = value
        else:
            raise LaunchError(f"unknown option {name}")
    except ValueError:
        raise LaunchError(f"{name} does not take {value!r}") from None


def apply_rlimit(text: str) -> None:
    """Set one limit given as `NOFILE=1024:4096`, `CPU=5` (soft and hard alike) or `CORE=0:inf`.

    Raises:
        LaunchError: no such limit, no number, or more than this process may have.
    """
    import resource  # most launches set no limit

    name, _, values = text.partition("=")
    which = getattr(resource, f"RLIMIT_{name}", None)
    soft, _, hard = values.partition(":")
    try:
        pair = [resource.RLIM_INFINITY if value == "inf" else int(value) for value in (soft, hard or soft)]
        if which is None:
            raise LaunchError(f"no limit RLIMIT_{name} here")
        resource.setrlimit(which, (pair[0], pair[1]))
    except (ValueError, OSError) as error:
        raise LaunchError(f"limit {text}: {error}") from None


def set_process(libc: ctypes.CDLL, option: int, value: int) -> None:
    """One setting of prctl(2). Raises `LaunchError` when the kernel refuses it."""
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise LaunchError(f"prctl: {os.strerror(ctypes.get_errno())}")


def die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    """Be killed when the parent's thread that started us ends.

    Raises:
        LaunchError: the parent was gone already; the signal would never come.
    """
    set_process(libc, PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        raise LaunchError(f"parent {parent} is gone", EXIT_ORPHANED)


def default_signals(libc: ctypes.CDLL) -> None:
    """Default actions and an empty mask, whatever was inherited."""
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    for number in SIGNALS:
        libc.signal(number, None)  # None is SIG_DFL; refused for SIGKILL and SIGSTOP, which have no other
    libc.sigprocmask(SIG_SETMASK, ctypes.create_string_buffer(SIGSET_BYTES), None)


def choose_descriptors(keep: list[int]) -> None:
    """Beside the standard descriptors the program gets these alone: what else is open was not closed by a start."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib is slow to load
        fd = int(name)
        if fd > STANDARD_MAX and fd not in keep:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue  # it was that of the list itself
    for fd in keep:
        os.set_inheritable(fd, True)


def become(plan: Plan) -> None:
    """Do what the plan says. Does not return.

    Raises:
        LaunchError: something of it cannot be had.
    """
    assert plan.parent is not None
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        os.setsid()
        die_with_parent(libc, plan.parent)
        if plan.subreaper:
            set_process(libc, PR_SET_CHILD_SUBREAPER, 1)
        default_signals(libc)
        choose_descriptors(plan.keep)
        for text in plan.rlimits:
            apply_rlimit(text)
        if plan.umask is not None:
            os.umask(plan.umask)
        if plan.chdir is not None:
            os.chdir(plan.chdir)
    except OSError as error:
        raise LaunchError(str(error)) from None
    try:
        os.execvp(plan.argv[0], plan.argv)  # noqa: S606 - no shell is wanted
    except FileNotFoundError:
        raise LaunchError(f"no such program: {plan.argv[0]}", EXIT_NOT_FOUND) from None
    except (OSError, ValueError) as error:
        raise LaunchError(f"cannot run {plan.argv[0]}: {error}", EXIT_NOT_RUNNABLE) from None


def main() -> None:
    """Run as a script. Ends with one of the `EXIT_` statuses when the program could not be started."""
    try:
        become(read_plan(sys.argv[1:]))
    except LaunchError as error:
        sys.stderr.write(f"launch: {error}\n")
        sys.exit(error.status)


if __name__ == "__main__":
    main()
