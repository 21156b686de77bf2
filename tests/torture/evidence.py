"""All that is known of a run, as the checks take it: plain data, of a size that grows with the number of jobs only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from jobsvc.model.states import State
from tests.torture.kinds import JobSpec
from tests.torture.records import Deed, Effect, Life, Op
from tests.torture.wire import MOVED

FINAL = frozenset(("succeeded", "failed", "cancelled", "expired"))


class Row(msgspec.Struct, gc=False):
    """A job in the final listing. Times in microseconds of the wall clock; `digest` of the row's bytes."""

    id: str
    mark: str
    task: str
    executor: str
    state: str
    reason: str | None
    revision: int
    epoch: int
    attempt: int
    max_attempts: int
    on_lost: str
    created: int
    finished: int | None
    result: str | None
    error_kind: str | None
    digest: bytes
    moved: bool = False
    rerun_of: str | None = None


class AttemptRow(msgspec.Struct, gc=False):
    """One row of `/attempts`."""

    epoch: int
    attempt: int
    state: str
    began: int | None
    finished: int | None
    error_kind: str | None


class StateEvent(NamedTuple):
    """One state event of a job's stream."""

    seq: int
    state: State
    epoch: int
    revision: int


class Hygiene(msgspec.Struct):
    """What was found when all was quiet, and after the last stop."""

    integrity: list[str] = []
    zombies: list[str] = []
    left_processes: list[str] = []
    strange_files: list[str] = []
    log_troubles: list[str] = []
    wal_bytes: int = 0
    secrets_found: list[str] = []
    left_files: list[str] = []
    descriptors_ready: int = 0
    descriptors_quiet: int = 0


class Evidence(msgspec.Struct, dict=True):
    """See the module. `rows` and `again` are two readings of the whole listing; `said`: what the events of jobs that
    were followed say in the end, by number.
    """  # fmt: skip

    specs: dict[str, JobSpec] = {}
    ops: list[Op] = []
    effects: list[Effect] = []
    rows: list[Row] = []
    again: list[Row] = []
    attempts: dict[str, list[AttemptRow]] = {}
    states: dict[str, list[StateEvent]] = {}
    said: dict[str, dict[int, str]] = {}
    lives: list[Life] = []
    deeds: list[Deed] = []
    hygiene: Hygiene = msgspec.field(default_factory=Hygiene)

    @cached_property
    def by_id(self) -> dict[str, Row]:
        """The final rows."""
        return {row.id: row for row in self.rows}

    @cached_property
    def by_mark(self) -> dict[str, Row]:
        """The same by mark; the first of each."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.mark, row)
        return found

    @cached_property
    def effects_of(self) -> dict[str, list[Effect]]:
        """The lines of each job by its id, in the order of their moments. A program knows its mark only."""
        found: defaultdict[str, list[Effect]] = defaultdict(list)
        for effect in sorted(self.effects, key=lambda line: line.at):
            job = effect.job
            if job is None:
                row = self.by_mark.get(effect.mark)
                job = effect.mark if row is None else row.id
            found[job].append(effect)
        return found

    @cached_property
    def ops_of(self) -> dict[str, list[Op]]:
        """The operations on each job by its id, in the order of their ends."""
        found: defaultdict[str, list[Op]] = defaultdict(list)
        for op in sorted(self.ops, key=lambda op: op.ended):
            if op.job:
                found[op.job].append(op)
        return found


def runs_of(effects: list[Effect]) -> list[list[Effect]]:
    """The lines of one job, by attempt, in the order of the first lines. A program's attempts differ by process."""
    runs: dict[tuple[int | None, int], list[Effect]] = {}
    for effect in effects:
        runs.setdefault((effect.epoch, effect.pid), []).append(effect)
    return list(runs.values())


def row_of(text: bytes, true_wall: Callable[[int], int]) -> Row:
    """A row of the listing, read with `include=args,result`; `true_wall` undoes what the clock was set by."""
    job = msgspec.json.decode(text, type=_Listed)
    error = msgspec.json.decode(job.error)
    args = msgspec.json.decode(job.args)
    return Row(
        id=job.id, mark=args["mark"] if isinstance(args, dict) else "", task=job.task, executor=job.executor,
        state=job.state, reason=job.reason, revision=job.revision, epoch=job.epoch, attempt=job.attempt,
        max_attempts=job.max_attempts, on_lost=job.on_lost, created=true_wall(micros(job.created_at)),
        finished=_moment(job.finished_at, true_wall),
        result=bytes(job.result).decode() if job.state == "succeeded" else None,
        error_kind=None if error is None else error["kind"], digest=blake2b(text, digest_size=16).digest(),
        moved=MOVED in job.labels, rerun_of=job.rerun_of,
    )  # fmt: skip


def attempt_of(row: dict[str, Any], true_wall: Callable[[int], int]) -> AttemptRow:
    """A row of `/attempts`."""
    error = row["error"]
    kind = None if error is None else error["kind"]
    began, finished = _moment(row["began_at"], true_wall), _moment(row["finished_at"], true_wall)
    return AttemptRow(row["epoch"], row["attempt"], row["state"], began, finished, kind)


def _moment(text: str | None, true_wall: Callable[[int], int]) -> int | None:
    return None if text is None else true_wall(micros(text))


def micros(text: str) -> int:
    """A moment of the API in microseconds."""
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


class _Listed(msgspec.Struct):
    id: str
    args: Raw
    task: str
    executor: str
    state: str
    reason: str | None
    revision: int
    epoch: int
    attempt: int
    max_attempts: int
    on_lost: str
    labels: dict[str, str]
    rerun_of: str | None
    created_at: str
    finished_at: str | None
    result: Raw
    error: Raw
