"""F2: the rlimits of what runs in one cpu worker, set from here while it is idle, and the look at its tree.

They hold for each process alone:

- `cpu_s`: RLIMIT_CPU counts what the worker has used since its own start, so it is set to that and the limit, rounded
  up to whole seconds. The kernel then sends SIGXCPU.
- `open_files`: RLIMIT_NOFILE bounds the number of the next descriptor; those that are open already get room of their
  own. Opening one more fails (EMFILE). The worker's channel is open and stays so.
- `file_bytes`: RLIMIT_FSIZE. Writing more fails (EFBIG) in Python, which ignores SIGXFSZ; other programs die by it.
- `max_rss`: RLIMIT_DATA, because RLIMIT_AS counts what is merely reserved and breaks threads. It counts the memory
  that is writable and private, touched or not: a thread has 8 MiB of that and 12 kB resident. So it is set to what the
  worker has, and what is missing to `max_rss`, and the stacks of as many threads as Python's own pool starts: an
  allocation that would go far over is refused (MemoryError).

Only soft limits are changed: who is not root could not raise a hard one again for the next job. That holds against
mistakes, not against hostile code.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.logger import Logger

from jobsvc.model.errors import Exit
from jobsvc.model.frames import Message, Result, Returned, Start
from jobsvc.model.task import NO_LIMITS, Limits, TaskSpec
from jobsvc.pool.limits import (
    CPU_GRACE_S,
    NOTHING,
    STACKS_BYTES,
    Look,
    Over,
    UsageWatch,
    excess,
    explain,
    signalled,
    within,
)
from jobsvc.pool.usage import Usage, cpu_used_s, memory_of, open_descriptors, usage_of

Attempt = tuple[int, int]
KINDS = (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)


def own_limits(tasks: Iterable[TaskSpec], defaults: Limits) -> dict[str, Limits]:
    """By name, the limits of those tasks that have any, with the defaults where they say nothing."""
    return {spec.name: spec.limits.over(defaults) for spec in tasks if spec.limits != NO_LIMITS}


class WorkerLimits:
    """The limits of what runs in one cpu worker.

    A task's own hold for one attempt, which the engine hands to an idle worker alone. The defaults hold for all
    others; as these may wait in the worker one behind the other, their processor time is only looked at.

    Args:
        root: the process we started.
        pids: those of its tree that run attempts: the worker, or all where a launcher prefix hides which it is.
        defaults: for tasks that say nothing.
        own: by task, complete: see `Limits.over`.
        running: the attempt of the begin mark.
        over: told of an attempt that has passed a limit.
    """

    _log = Logger()

    def __init__(
        self,
        watch: UsageWatch,
        *,
        root: int,
        pids: Sequence[int],
        defaults: Limits,
        own: Mapping[str, Limits],
        running: Callable[[], Attempt | None],
        over: Callable[[Over], None],
    ) -> None:
        self._watch = watch
        self._root = root
        self._defaults = defaults
        self._own = own
        self._running = running
        self._over = over
        self._first = {pid: self._softs(pid) for pid in pids}  # soft limits as they were given
        self._alone: Attempt | None = None  # for whom limits of its own are in force
        self._limits = defaults  # in force
        self._seen: Attempt | None = None  # whose usage is counted from `_before`
        self._before = NOTHING
        self._passed: Over | None = None  # for which it is killed
        self._set()
        self._standing = defaults.max_rss is not None or defaults.cpu_s is not None
        if self._standing:
            watch.add(self)

    def of(self, attempt: Attempt | None) -> Limits:
        """The limits of this attempt."""
        return self._limits if attempt is not None and attempt == self._alone else self._defaults

    def before(self, messages: Iterable[Message]) -> None:
        """These are about to be sent."""
        for message in messages:
            if not isinstance(message, Start):
                continue
            own = self._own.get(message.task)
            if own is not None:
                self._alone, self._limits = (message.no, message.epoch), own
                self._seen, self._before = self._alone, usage_of(self._root)
                self._set()
                if own.max_rss is not None or own.cpu_s is not None:
                    self._watch.add(self)
            elif self._alone is not None:
                self._alone, self._limits = None, self._defaults
                self._set()

    def heard(self, messages: Iterable[Message]) -> None:
        """These have come from the worker: an end is explained, and after it nobody need look."""
        for message in messages:
            if isinstance(message, Result):
                attempt = (message.no, message.epoch)
                if message.error is not None:
                    explain(message.error, self.of(attempt))
            elif not isinstance(message, Returned):
                continue
            if not self._standing:
                self._watch.remove(self)

    def look(self) -> Look | None:
        """See `Looked`."""
        attempt = self._running()
        if attempt is None:
            return None
        return Look(self._root, self.of(attempt).max_rss, lambda used: self._judge(attempt, used))

    def _judge(self, attempt: Attempt, used: Usage) -> None:
        """So much was used while this attempt ran."""
        if self._running() != attempt:
            return  # another one has begun meanwhile
        if attempt != self._seen:
            self._seen, self._before = attempt, used
        over = excess(self.of(attempt), used, self._before, CPU_GRACE_S if attempt == self._alone else 0.0)
        if over is not None:
            self.stop()
            self._passed = over
            self._over(over)

    def stop(self) -> None:
        """The worker is about to end."""
        self._watch.remove(self)

    def ended(self, end: Exit, attempt: Attempt | None) -> str | None:
        """The worker has ended so while it ran this attempt; the words for the limit, if it died of one."""
        self.stop()
        over = self._passed if end.name == "SIGKILL" else None
        over = over or signalled(self.of(attempt), end)
        if over is not None and over.oom:
            end.oom = True
        return None if over is None else over.words

    # -- rlimits

    def _set(self) -> None:
        limits = self._limits
        for pid, first in self._first.items():
            wanted = dict(first)
            if self._alone is not None and limits.cpu_s is not None:
                wanted[resource.RLIMIT_CPU] = math.ceil(cpu_used_s(pid)) + limits.cpu_s
            if limits.open_files is not None:
                wanted[resource.RLIMIT_NOFILE] = highest(limits.open_files, open_descriptors(pid))
            if limits.file_bytes is not None:
                wanted[resource.RLIMIT_FSIZE] = limits.file_bytes
            if limits.max_rss is not None:
                data, rss = memory_of(pid)
                wanted[resource.RLIMIT_DATA] = data + max(0, limits.max_rss - rss) + STACKS_BYTES
            for which, soft in wanted.items():
                self._put(pid, which, soft)

    def _put(self, pid: int, which: int, soft: int) -> None:
        try:
            now, hard = resource.prlimit(pid, which)
            soft = within(soft, hard)
            if soft != now:
                resource.prlimit(pid, which, (soft, hard))
        except ProcessLookupError:
            return  # its death is about to be told
        except PermissionError:
            self._log.error(
                "no limits can be set on process {pid}: it belongs to another user; "
                "memory and processor time are still looked at",
                pid=pid, action="limit_refused",
            )  # fmt: skip

    def _softs(self, pid: int) -> dict[int, int]:
        try:
            return {which: resource.prlimit(pid, which)[0] for which in KINDS}
        except (ProcessLookupError, PermissionError):
            return {}


def highest(more: int, descriptors: Sequence[int]) -> int:
    """RLIMIT_NOFILE with which `more` descriptors can be opened beside these."""
    limit = more
    while (wanted := more + sum(fd < limit for fd in descriptors)) != limit:
        limit = wanted
    return limit
