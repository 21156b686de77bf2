"""F2: what the workers of a daemon are to be, and what each of a kind is told at its start."""

from __future__ import annotations

from pathlib import Path

import msgspec

from jobsvc.model.limits import LOOP_SLOTS, THREADS
from jobsvc.model.task import NO_LIMITS, Limits
from jobsvc.pool.plan import HostKind, Plan
from jobsvc.pool.recycle import Recycling

KINDS: tuple[HostKind, ...] = ("io", "cpu")

COMMAND_SLOTS = 16
"""Programs that run at once: they do their work elsewhere, yet each is a process with memory of its own."""


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers are to be.

    `path`: where the workers look for modules before they look in `cwd`, the folder in which the daemon was started.
    `limits`: of tasks on processes and of commands that say nothing. `prefix`: words before every worker and command.
    `worker_env`: names and patterns of the variables that they get; None: all but the daemon's own.
    """

    modules: tuple[str, ...]
    path: tuple[str, ...] = ()
    cwd: Path = msgspec.field(default_factory=Path.cwd)
    cpu_workers: int
    threads: int = THREADS
    loop_slots: int = LOOP_SLOTS
    command_slots: int = COMMAND_SLOTS
    limits: Limits = NO_LIMITS
    prefix: tuple[str, ...] = ()
    recycle: Recycling = Recycling()
    worker_env: tuple[str, ...] | None = None

    def kinds(self) -> list[HostKind]:
        """One for each worker there is to be."""
        io, cpu = KINDS
        return [io] + [cpu] * self.cpu_workers

    def plan(self, kind: HostKind, boot: str) -> Plan:
        """What the workers of this kind are told in this start of the daemon."""
        slots = {"loop": self.loop_slots, "thread": self.threads} if kind == "io" else {"process": 1}
        return Plan(kind=kind, boot=boot, modules=self.modules, path=self.path, slots=slots)
