"""Late results by the hundred: attempts that were given up report after all, to the very store a daemon writes to.

A daemon drops most of them before they reach the store. Here nothing does: epoch and owner in the statements alone
must refuse them. `python late_results.py DATABASE JOBS` plays the run on the `jobsvc` that it can import, and prints
what happened as JSON lines; `results_that_come_late` runs it on a given source and hands the evidence to the checks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from tests.torture.checks.finding import Finding
    from tests.torture.evidence import Evidence

NOW: Final = 1_790_000_000_000_000
BATCH: Final = 50
SECOND_US: Final = 1_000_000
JOBS: Final = 1_000
"""Each has two late results: one of an older epoch, one of another owner."""


class Played(msgspec.Struct):
    """One job at its end, as the store has it, and how many late writes were refused."""

    id: str
    mark: str
    epoch: int
    state: str
    result: str | None
    attempts: list[int]
    refused: int


def play(file: str, jobs: int) -> Iterator[Played]:
    """Submit, claim, lose, claim again; then the late results, then the true one."""
    from jobsvc.model.events import Attempt
    from jobsvc.model.job import Job
    from jobsvc.ports import Claim, Settled, Step
    from jobsvc.store.sqlite import SqliteStore

    def result(job: Job, word: str) -> bytes:
        return msgspec.json.encode({"mark": word, "value": 1, "epoch": job.epoch})

    def end(job: Job, word: str, owner: str | None) -> Settled:
        return Settled(
            no=job.no, epoch=job.epoch, owner=owner or "", state="succeeded", reason=None, attempt=1,
            started_at=NOW + 1, finished_at=NOW + 3 * SECOND_US, seq=job.seq + 1, revision=job.revision + 1,
            result=result(job, word), error=None, losses=0,
        )  # fmt: skip

    record = Attempt(epoch=1, attempt=1, state="lost", began_at=NOW, finished_at=NOW, worker=None, error=None)

    def claimed(owner: str, count: int) -> list[Job]:
        (found,) = store.claim([Claim(owner, "process", {"late": count}, count, NOW)])
        return found

    store = SqliteStore(file, "process")
    store.open()
    for start in range(0, jobs, BATCH):
        count = min(BATCH, jobs - start)
        store.submit([
            Job(id=(start + place + 1).to_bytes(16, "big"), task="late", executor="process", created_at=NOW)
            for place in range(count)
        ])  # fmt: skip
        first = claimed("cpu-1", count)
        steps = [
            Step(
                no=job.no, epoch=1, owner="cpu-1", to="queued", reason="lost", at=NOW, due_at=None, attempt=0,
                losses=1, seq=job.seq + 1, revision=job.revision + 1,
                record=record,
            )
            for job in first
        ]  # fmt: skip
        assert all(store.step(steps))
        second = {job.no: job for job in claimed("cpu-1", count)}
        late = [end(job, "late", "cpu-1") for job in first]
        strange = [end(second[job.no], "strange", "cpu-2") for job in first]
        refused = [not ok for ok in store.settle(late)]
        refused_too = [not ok for ok in store.settle(strange)]
        store.settle([end(job, f"late-{job.no}", "cpu-1") for job in second.values()])
        for place, job in enumerate(first):
            row = store.reads.get(job.id)
            assert row is not None
            epochs = [attempt.epoch for attempt in store.reads.attempts(job.no)]
            yield Played(
                job.id.hex(), f"late-{job.no}", row.epoch, row.state, (row.result or b"").decode() or None,
                [*epochs, row.epoch], refused[place] + refused_too[place],
            )  # fmt: skip
    store.close()


def results_that_come_late(folder: Path, source: Path, jobs: int = JOBS) -> list[Finding]:
    """Play it on the `jobsvc` of a source, and let the checks judge."""
    from tests.torture.checks import check

    return check(evidence(run(folder, source, jobs)))


def run(folder: Path, source: Path, jobs: int) -> list[Played]:
    """Play it on the `jobsvc` of a source."""
    environ = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, __file__, str(folder / "late.db"), str(jobs)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [msgspec.json.decode(line, type=Played) for line in done.stdout.splitlines()]


def evidence(found: Sequence[Played]) -> Evidence:
    """What the run said, as evidence of one life of a daemon."""
    from tests.torture.evidence import AttemptRow, Evidence, Hygiene, Row
    from tests.torture.kinds import JobSpec
    from tests.torture.records import Effect, Line, Op

    def effect(played: Played, epoch: int, what: Any, at: int) -> Effect:
        return Effect(what, played.mark, played.id, epoch, epoch, "", at, NOW + at, "returned")

    made = Evidence(hygiene=Hygiene(integrity=["ok"]))
    for played in found:
        seen = Line(0, "ok", 1, NOW, state="queued", job=played.id, key=played.mark)
        made.ops.append(Op("submit", 0, played.mark, played.id, 0, NOW, 1, "ok", seen))
        made.specs[played.mark] = JobSpec(played.mark, "late", {}, value=1)
        row = Row(
            id=played.id, mark=played.mark, task="late", executor="process", state=played.state, reason=None,
            revision=5, epoch=played.epoch, attempt=1, max_attempts=1, on_lost="retry", created=NOW,
            finished=NOW + 3 * SECOND_US, result=played.result, error_kind=None, digest=b"",
        )  # fmt: skip
        made.rows.append(row)
        made.again.append(row)
        made.attempts[played.id] = [
            AttemptRow(epoch, 1, "lost" if epoch < played.epoch else played.state, NOW, NOW, None)
            for epoch in played.attempts
        ]
        made.effects += [
            effect(played, 1, "start", 2),
            effect(played, 2, "start", 3),
            effect(played, 2, "end", 4),
        ]
    return made


if __name__ == "__main__":
    for each in play(sys.argv[1], int(sys.argv[2])):
        sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
