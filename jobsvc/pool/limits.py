"""F2: what attempts may use: how it is looked at, which limit was passed, and what a program is started with.

`cpu_s` and `max_rss` are of an attempt with all that it has started: its tree is looked at twice a second, and killed
when it is over. Beside that the kernel holds each process by its rlimits; `worker_limits` says how, and what they mean.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from jobsvc.model.errors import Exit, JobError
from jobsvc.model.limits import MIB
from jobsvc.model.sizes import size_text
from jobsvc.model.task import Limits
from jobsvc.pool.usage import Usage, fair_bytes, usage_of

WATCH_S = 0.5
"""Between two looks: a tree costs a thread some 0.1 ms, and what grows by 1 GiB/s is 0.5 GiB over when it is seen."""
CPU_GRACE_S = 1.5
"""Over `cpu_s` until the tree is killed, where the kernel warns first by SIGXCPU: it counts whole seconds."""
CPU_HARD_S = 5
"""Over `cpu_s` until the kernel itself kills a program that ignores SIGXCPU: the daemon may be held up meanwhile."""
STACK_BYTES = 8 * MIB
"""Of a thread, the usual default; counted whole by RLIMIT_DATA, though hardly any of it is resident."""
STACKS_BYTES = STACK_BYTES * min(32, len(os.sched_getaffinity(0)) + 4)
"""Room beyond `max_rss` for the stacks of one `ThreadPoolExecutor()`. A job with more threads needs more `max_rss`."""
STANDARD_DESCRIPTORS = 3
"""A program has them open before it opens anything itself."""

UNLIMITED = resource.RLIM_INFINITY
NOTHING = Usage([], 0, 0.0)


class Over(NamedTuple):
    """A limit that was passed: the words for the job's error, and whether it was memory."""

    words: str
    oom: bool


def excess(limits: Limits, used: Usage, before: Usage, grace_s: float) -> Over | None:
    """The limit that an attempt has passed; `before`: what its tree had used when it began."""
    most = limits.max_rss
    if most is not None and used.rss_bytes > most:
        base = f", {size_text(before.rss_bytes)} of it before it began" if before.rss_bytes else ""
        rss = size_text(used.rss_bytes)
        return Over(f"memory limit of {size_text(most)} (max_rss): it used {rss}{base}", oom=True)
    cpu_s = used.cpu_s - before.cpu_s
    if limits.cpu_s is not None and cpu_s > limits.cpu_s + grace_s:
        return Over(f"cpu limit of {limits.cpu_s} s (cpu_s): it used {cpu_s:.1f} s", oom=False)
    return None


def signalled(limits: Limits, end: Exit) -> Over | None:
    """The limit for which the kernel has ended a process, by its signal."""
    if end.name == "SIGXCPU" and limits.cpu_s is not None:
        return Over(f"cpu limit of {limits.cpu_s} s (cpu_s): ended by SIGXCPU", oom=False)
    if end.name == "SIGXFSZ" and limits.file_bytes is not None:
        return Over(f"file limit of {size_text(limits.file_bytes)} (file_bytes): ended by SIGXFSZ", oom=False)
    return None


def explain(error: JobError, limits: Limits) -> None:
    """Name the limit in the error of an attempt that was refused something."""
    said = None
    if error.type == "MemoryError" and limits.max_rss is not None:
        said = f"its memory limit is {size_text(limits.max_rss)} (max_rss)"
    elif error.type == "OSError" and error.message.startswith("[Errno 24]") and limits.open_files is not None:
        said = f"it may open {limits.open_files} files (open_files)"
    elif error.type == "OSError" and error.message.startswith("[Errno 27]") and limits.file_bytes is not None:
        said = f"its files may have {size_text(limits.file_bytes)} (file_bytes)"
    if said is not None:
        error.message = f"{error.message}; {said}" if error.message else said


# -- the look -----------------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What is to be measured: the tree of `root`; above `most` resident bytes with a closer look at shared pages."""

    root: int
    most: int | None
    judge: Callable[[Usage], None]


class Looked(Protocol):
    """Something that is looked at twice a second."""

    def look(self) -> Look | None:
        """What to measure now and who compares it with the limits; None = nothing."""


def measured(root: int, most: int | None) -> Usage:
    """What this tree uses. Runs on: a thread, since a tree can have grown to thousands."""
    used = usage_of(root)
    if most is not None and used.rss_bytes > most and len(used.pids) > 1:
        # Children share much with their parents.
        used = used._replace(rss_bytes=fair_bytes(used.pids) or used.rss_bytes)
    return used


Measures = Callable[[], list[Usage]]
Fetch = Callable[[Measures, Callable[[list[Usage]], None]], None]
"""Has a thread measure and tells what it found on the reactor; nothing when that failed."""


class UsageWatch:
    """One timer for all that is watched; none while nothing is."""

    def __init__(self, clock: IReactorTime, fetch: Fetch) -> None:
        self._clock = clock
        self._fetch = fetch
        self._watched: list[Looked] = []
        self._timer: IDelayedCall | None = None
        self._measuring = False

    def add(self, looked: Looked) -> None:
        """Look at it from now on."""
        if looked not in self._watched:
            self._watched.append(looked)
        if self._timer is None:
            self._timer = self._clock.callLater(WATCH_S, self._tick)

    def remove(self, looked: Looked) -> None:
        """Not any more."""
        if looked in self._watched:
            self._watched.remove(looked)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._clock.callLater(WATCH_S, self._tick)
        looks = [(looked, look) for looked in self._watched if (look := looked.look()) is not None]
        if not looks or self._measuring:
            return
        self._measuring = True

        def told(used: list[Usage]) -> None:
            self._measuring = False
            for (looked, look), usage in zip(looks, used, strict=False):
                if looked in self._watched:  # else it has ended meanwhile
                    look.judge(usage)

        self._fetch(lambda: [measured(look.root, look.most) for _, look in looks], told)


# -- programs -----------------------------------------------------------------------------------------------------


def launch_options(limits: Limits) -> list[str]:
    """Options of launch.py for a program with these limits; none above what the daemon itself may have."""
    words: list[str] = []
    for name, soft, hard in (
        ("CPU", limits.cpu_s, CPU_HARD_S),
        ("NOFILE", limits.open_files and limits.open_files + STANDARD_DESCRIPTORS, 0),
        ("FSIZE", limits.file_bytes, 0),
        ("DATA", limits.max_rss and limits.max_rss + STACKS_BYTES, 0),
    ):
        if soft is not None:
            _, most = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            words += ["--rlimit", f"{name}={within(soft, most)}:{within(soft + hard, most)}"]
    return words


class ProgramLimits:
    """The look at one program.

    Args:
        root: its process.
        over: told once.
    """

    def __init__(self, watch: UsageWatch, root: int, limits: Limits, over: Callable[[Over], None]) -> None:
        self._watch = watch
        self._root = root
        self._limits = limits
        self._over = over
        if limits.max_rss is not None or limits.cpu_s is not None:
            watch.add(self)

    def look(self) -> Look:
        """See `Looked`."""
        return Look(self._root, self._limits.max_rss, self._judge)

    def _judge(self, used: Usage) -> None:
        over = excess(self._limits, used, NOTHING, CPU_GRACE_S)
        if over is not None:
            self.stop()
            self._over(over)

    def stop(self) -> None:
        """It has ended."""
        self._watch.remove(self)


def within(value: int, most: int) -> int:
    """A limit that is at most another, where -1 means none."""
    if most == UNLIMITED:
        return value
    return most if value == UNLIMITED else min(value, most)
