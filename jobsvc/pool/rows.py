"""F2: the workers and the task modules as people see them: the rows of `/v1/workers`, the checks of `/readyz`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from jobsvc.model.clock import time_text
from jobsvc.pool.breaker import BrokenModule
from jobsvc.pool.command import CommandWorker
from jobsvc.pool.slot import Slot
from jobsvc.pool.tree import rss_bytes


class ModuleRow(NamedTuple):
    """One task module: `holders` workers that serve have it loaded; `broken` where new ones are started without it."""

    name: str
    holders: int
    broken: BrokenModule | None


class WorkerRow(TypedDict):
    """One worker as `/v1/workers` shows it, but for `running`, which the engine knows.

    `restarts`: how often the worker in this place died and was started again. The successor of a worker that was
    recycled or reloaded begins with 0: that was no failure.
    """

    id: str
    kind: str
    pid: int | None
    state: str
    slots: Mapping[str, int]
    started_at: str
    rss: int | None
    restarts: int


def module_rows(
    names: Sequence[str], broken: Mapping[str, BrokenModule], slots: Sequence[Slot]
) -> list[ModuleRow]:
    """One for each of these modules."""
    ready = [slot for slot in slots if slot.state == "ready"]
    return [ModuleRow(name, sum(name in slot.modules for slot in ready), broken.get(name)) for name in names]


def usable(rows: Sequence[ModuleRow]) -> tuple[bool, str]:
    """Whether any module works, and one line."""
    count = sum(row.broken is None or row.holders > 0 for row in rows)
    return bool(count), f"{count} of {len(rows)} work"


def flaws(rows: Iterable[ModuleRow]) -> list[tuple[str, str]]:
    """Of each broken module its check and one line: since when, why, when it is tried again, what becomes of jobs."""
    told: list[tuple[str, str]] = []
    for name, holders, broken in rows:
        if broken is not None:
            jobs = (
                "wait, but for those that the {n} workers run which loaded it before" if holders else "wait"
            )
            words = (
                f"broken since {time_text(broken.since_us)}: {broken.line}; its jobs {jobs.format(n=holders)}; "
                f"tried again at {time_text(broken.again_us)}, by POST /v1/reload at once"
            )
            told.append((f"module {name}", words))
    return told


def worker_rows(slots: Iterable[Slot], command: CommandWorker) -> list[WorkerRow]:
    """One for each process, and one for all commands."""
    rows = [
        WorkerRow(
            id=worker.id,
            kind=worker.kind,
            pid=worker.pid,
            state=slot.state,
            slots=worker.slots,
            started_at=time_text(worker.started_us),
            rss=None if worker.pid is None else sum(rss_bytes(pid) or 0 for pid in worker.code_pids),
            restarts=slot.restarts,
        )
        for slot in slots
        if (worker := slot.worker) is not None
    ]
    rows.append(
        WorkerRow(
            id=command.id,
            kind=command.kind,
            pid=None,
            state=command.state,
            slots=command.slots,
            started_at=time_text(command.started_us),
            rss=None,
            restarts=0,
        )
    )
    return rows
