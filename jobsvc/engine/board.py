"""F2: what the engine holds in memory: the tasks, the seats on workers, the attempts that are active.

Everything here is owned by the reactor thread. A job that waits is only in the store; a job that is active is here
too, and this copy is ahead of its row (numbers of events, progress) until its outcome is committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import msgspec
from twisted.internet.interfaces import IDelayedCall

from jobsvc.model.job import Job
from jobsvc.model.limits import PREFETCH_JOBS, PREFETCH_ONE_S, PREFETCH_S, QUICK_S
from jobsvc.model.sealing import KeyRing
from jobsvc.model.task import NO_LIMITS, Policy, TaskSpec
from jobsvc.model.types import checker
from jobsvc.model.typetree import TypeNode, from_bytes, kinds_in
from jobsvc.ports import Worker
from jobsvc.runtime.waiting import Waiters

SMOOTHING = 0.2
"""Weight of the newest run time in a task's smoothed one: five runs decide, one outlier does not."""

NO_CAP = 1_000_000
"""Stands for "as many as there are slots" where a task has no cap of its own."""

StopReason = Literal["cancel_asked", "timeout", "drained"]
TimeoutName = Literal["run", "idle", "total"]


class TaskState:
    """A task, and what the dispatcher has learnt of it."""

    __slots__ = ("alone", "check", "mark", "mean_s", "policy_text", "secrets", "spec")

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.check: Callable[[bytes], None] = checker(spec.args_tree)
        node = from_bytes(spec.args_tree)
        # The signature, when there are secrets in it.
        self.secrets: TypeNode | None = node if "secret" in kinds_in(node) else None
        self.policy_text = msgspec.json.encode(spec.policy)
        # Limits are set on an idle worker and hold for one attempt: none waits there before or behind it.
        self.alone = spec.executor == "process" and spec.limits != NO_LIMITS
        self.mean_s: float | None = None  # smoothed run time; None = not yet timed
        self.mark = (
            0  # grows with `Board.raise_ready`: a claim that comes back short proves nothing of later jobs
        )

    def observe(self, run_s: float) -> None:
        """An attempt ran this long."""
        mean = self.mean_s
        self.mean_s = run_s if mean is None else mean + SMOOTHING * (run_s - mean)

    @property
    def quick(self) -> bool:
        """Whether it is known to take less than `QUICK_S`."""
        return self.mean_s is not None and self.mean_s < QUICK_S

    @property
    def est_s(self) -> float | None:
        """What an attempt is expected to take; None = nothing may wait behind it."""
        return None if self.alone else self.mean_s

    @property
    def ahead(self) -> int:
        """How many of it may wait in a cpu worker behind the one that runs."""
        if self.alone or self.mean_s is None or self.mean_s > PREFETCH_ONE_S:
            return 0
        if self.spec.policy.on_lost == "fail":
            return 0
        if self.mean_s * PREFETCH_JOBS <= PREFETCH_S:
            return PREFETCH_JOBS
        return max(1, int(PREFETCH_S / self.mean_s))


class Stop:
    """Why an active attempt was asked to stop, and when it will be killed."""

    __slots__ = ("asked", "kill_timer", "passed", "reason", "unkillable")

    def __init__(self, reason: StopReason, passed: TimeoutName | None = None) -> None:
        self.reason = reason
        self.passed = passed  # the timeout that has passed, whatever it was first asked to stop for
        self.kill_timer: IDelayedCall | None = None
        self.unkillable = False  # a kill was tried and is not to be had: only the end of its worker ends it
        self.asked: Waiters[None] = Waiters()  # fires when `stopping` is committed, or is known not to be


class Tally:
    """Bytes kept of one stream of one job, in blocks, so that the oldest can be dropped without a list of all."""

    __slots__ = ("blocks", "head_bytes", "kept_bytes", "n")

    BLOCK_BYTES = 256 * 1024

    def __init__(self) -> None:
        self.n = 0  # items so far
        self.kept_bytes = 0
        self.head_bytes = 0  # kept for good (logs)
        self.blocks: list[tuple[int, int, int]] = []  # (first seq, last seq, bytes)

    def add(self, first: int, last: int, size: int) -> None:
        """A chunk came in."""
        self.kept_bytes += size
        if self.blocks and self.blocks[-1][2] < self.BLOCK_BYTES:
            start, _, have = self.blocks[-1]
            self.blocks[-1] = (start, last, have + size)
        else:
            self.blocks.append((first, last, size))

    def drop_over(self, quota_bytes: int) -> tuple[int, int]:
        """The range of numbers to drop so that at most `quota_bytes` stay; (0, 0) = none. The newest block stays."""
        first = last = 0
        while self.kept_bytes > quota_bytes and len(self.blocks) > 1:
            start, last, size = self.blocks.pop(0)
            first = first or start
            self.kept_bytes -= size
        return first, last


class Active:
    """One claimed job: its attempt on a worker."""

    __slots__ = (
        "began_us",
        "committed",
        "est_s",
        "held",
        "job",
        "policy",
        "quick",
        "revision",
        "seat",
        "settling",
        "stepping",
        "stop",
        "tallies",
        "task",
        "timers",
        "touched",
        "unstored",
    )

    def __init__(self, job: Job, policy: Policy, task: TaskState, seat: Seat) -> None:
        self.job = job
        self.policy = policy
        self.task = task
        self.seat = seat
        self.est_s = task.est_s  # what it was expected to take when it was handed over
        self.began_us: int | None = None
        self.quick = False  # its worker need not say at once that it has begun
        self.stop: Stop | None = None
        self.settling = False  # its end is on the way to the store
        self.stepping = False  # a change of its state is on the way: an end that arrives meanwhile is `held`
        self.held: Callable[[], None] | None = None
        self.committed = job.seq  # last event number that is durable, hence visible
        self.revision = job.revision  # last one given to a write; `job.revision` is the last that is durable
        self.tallies: dict[str, Tally] | None = None
        self.timers: list[IDelayedCall] | None = None
        self.touched = 0.0  # monotonic time of the last sign of life, where an idle timeout needs it
        self.unstored = 0  # chunks on their way to the store

    @property
    def key(self) -> tuple[int, int]:
        """(no, epoch), the attempt's name on the channel."""
        return (self.job.no, self.job.epoch)

    def tally(self, stream: str) -> Tally:
        """The tally of one stream."""
        if self.tallies is None:
            self.tallies = {}
        found = self.tallies.get(stream)
        if found is None:
            found = self.tallies[stream] = Tally()
        return found

    def cancel_timers(self) -> None:
        """The attempt is over: nothing of it may fire any more."""
        for timer in self.timers or ():
            if timer.active():
                timer.cancel()
        self.timers = None
        if self.stop is not None and self.stop.kill_timer is not None and self.stop.kill_timer.active():
            self.stop.kill_timer.cancel()


class Seat:
    """A worker and what was handed to it."""

    __slots__ = (
        "backlog_s", "claiming", "dismissed", "orphans", "outstanding", "retiring", "stuck", "untimed", "used",
        "watch", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.outstanding: dict[int, Active] = {}  # by row number, in the order of handing over
        self.used = dict.fromkeys(worker.slots, 0)  # slots taken by attempts
        self.claiming: set[str] = set()  # executors for which a claim is in flight
        self.orphans: dict[tuple[int, int], Active] = {}  # given-up thread attempts that still run
        self.backlog_s = 0.0  # estimated work handed over
        self.untimed = 0  # attempts handed over behind which nothing may wait: not yet timed, or limited
        self.retiring = False
        self.dismissed = False  # it was told to quit
        self.stuck: tuple[int, int] | None = (
            None  # the attempt that takes far longer than those behind it should wait
        )
        self.watch: IDelayedCall | None = None  # looks for such a one, while any are behind it

    @property
    def spent(self) -> bool:
        """Whether nothing that counts runs on it any more: given-up threads and what cannot be killed do not."""
        return not self.claiming and all(
            active.stop is not None and active.stop.unkillable for active in self.outstanding.values()
        )

    def room(self, executor: str, task: TaskState) -> int:
        """How many more attempts of `task` it may be handed."""
        used = self.used.get(executor)
        if used is None or self.retiring or self.stuck is not None or task.spec.name in self.worker.lacks:
            return 0
        if self.worker.kind != "cpu":
            return self.worker.slots[executor] - used
        ahead = task.ahead
        if used == 0:
            return 1 + ahead
        if self.untimed or ahead == 0 or task.mean_s is None:
            return 0
        running = next(iter(self.outstanding.values()), None)
        left_s = PREFETCH_S - self.backlog_s + ((running.est_s if running is not None else None) or 0.0)
        # Behind a single one there is always room for one: `ahead` has said that the task is short enough.
        fits = max(int(left_s / max(task.mean_s, PREFETCH_S / PREFETCH_JOBS)), used == 1)
        return max(0, min(PREFETCH_JOBS + 1 - used, fits))

    def take(self, executor: str, task: TaskState) -> None:
        """A slot is taken for an attempt that is about to be handed over."""
        self.used[executor] += 1
        est_s = task.est_s
        if est_s is None:
            self.untimed += 1
        else:
            self.backlog_s += est_s

    def give_back(self, executor: str, est_s: float | None) -> None:
        """The slot is free again; `est_s` as it was at `take`."""
        self.used[executor] -= 1
        if est_s is None:
            self.untimed -= 1
        else:
            self.backlog_s -= est_s
        if not self.used[executor]:
            self.backlog_s, self.untimed = 0.0, 0  # no rounding error outlives an idle moment


class Board:
    """All of it."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskState] = {}
        self.seats: dict[str, Seat] = {}  # by worker id
        self.active: dict[bytes, Active] = {}  # by job id
        self.running: Counter[str] = Counter()  # claimed or being claimed, by task
        self.ready: dict[
            str, dict[str, TaskState]
        ] = {}  # executor → tasks of which the store may have queued jobs
        self.ring: KeyRing | None = None
        """Keys of secret arguments; given by the composition root before the first task is known."""
        self.gone: Waiters[None] = Waiters()
        """Fires when attempts have left memory (their ends are committed), or turned out not to come into it."""

    def secret_key(self, job: Job, task: TaskState) -> bytes:
        """What opens the secrets of this job; empty when it has none, or their key is gone."""
        if task.secrets is None or job.args is None or self.ring is None:
            return b""
        return self.ring.key_for(job.args, job.id)

    def raise_ready(self, name: str) -> str | None:
        """Jobs of this task have been queued; its executor, None when there is no such task (until a reload)."""
        task = self.tasks.get(name)
        if task is None:
            return None
        task.mark += 1
        self.ready.setdefault(task.spec.executor, {})[name] = task
        return task.spec.executor

    def free(self, task: TaskState) -> int:
        """How many more of it may run under its own `concurrency`."""
        cap = task.spec.concurrency
        return NO_CAP if cap is None else max(0, cap - self.running[task.spec.name])

    def waits(self, executor: str) -> bool:
        """Whether jobs of this executor may be queued that some worker could run: those go first."""
        ready = self.ready.get(executor)
        if not ready:
            return False
        lacks = [seat.worker.lacks for seat in self.of(executor)]
        return not any(lacks) or any(any(name not in lack for lack in lacks) for name in ready)

    def broken(self, name: str) -> bool:
        """Whether the module of this task has loaded in none of the workers that could run it."""
        task = self.tasks.get(name)
        lacks = [] if task is None else [seat.worker.lacks for seat in self.of(task.spec.executor)]
        return bool(lacks) and all(name in lack for lack in lacks)

    def set_tasks(self, specs: Mapping[str, TaskSpec]) -> None:
        """These tasks from now on; what was learnt of the old ones goes, as their code may be another."""
        self.tasks = {name: TaskState(spec) for name, spec in specs.items()}
        self.ready = {}

    def of(self, executor: str) -> Iterator[Seat]:
        """Seats that offer `executor` and take new attempts."""
        return (seat for seat in self.seats.values() if executor in seat.used and not seat.retiring)
