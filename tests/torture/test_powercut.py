"""F16: the power goes at any moment, and nothing acknowledged is lost: every operation of a run is cut."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from jobsvc.ports import Claim
from jobsvc.store import connection
from jobsvc.store.schema import MIGRATIONS
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import NOW, end_of, job_of
from tests.torture.filelog import Disk, FileLog
from tests.torture.powercut import MUTANTS, Report, inspect, run
from tests.torture.recorded import connect_to

JOBS = 100
JOBS_OF_A_MUTANT = 20
CORES = len(os.sched_getaffinity(0))


def explained(report: Report) -> str:
    return "\n".join([report.line(), *report.examples])


def test_power_loses_nothing_at_any_operation() -> None:
    """F16: with `power`, at every operation of a run of 100 jobs, clean and torn: each job accepted is there, each
    outcome is as it was told, nothing is half done.
    """  # fmt: skip
    report = run(seed=1, jobs=JOBS, durability="power", processes=CORES)
    assert not report.void, explained(report)
    assert not report.red, explained(report)
    assert report.lost_calls_max == {"whole": 0, "clean": 0, "torn": 0}


def test_process_loses_only_what_came_since_the_log_was_synced() -> None:
    """F16: with `process` a power cut damages nothing and loses no more than what came since the last checkpoint;
    the death of the process at any operation loses nothing.
    """  # fmt: skip
    report = run(seed=2, jobs=JOBS, durability="process", torn=1, processes=CORES)
    assert not report.void, explained(report)
    assert not report.red, explained(report)
    assert report.lost_calls_max["whole"] == 0
    assert report.lost_calls_max["clean"] > 0  # else the cuts have tried nothing


@pytest.mark.parametrize(
    ("mutant", "finding"),
    [
        ("M2", {"lost", "changed", "behind"}),
        ("M3", {"lost", "corrupt", "behind"}),
        ("reply-before-commit", {"lost", "changed", "behind"}),
        ("no-transaction", {"mixed"}),
    ],
)
def test_seeded_bugs_are_found(mutant: str, finding: set[str]) -> None:
    """M2 (NORMAL where `power` is said), M3 (OFF), an answer before COMMIT, groups without a transaction: each turns
    the report red, and by what it does.
    """  # fmt: skip
    report = run(seed=3, jobs=JOBS_OF_A_MUTANT, durability="power", mutate=mutant, torn=1, processes=CORES)
    assert not report.void, explained(report)
    assert report.red
    assert {kind for kind, images in report.findings.items() if images} >= finding, explained(report)
    assert report.examples


def test_every_seeded_bug_is_tried() -> None:
    """A bug added to the list is one more case above."""
    (cases,) = (mark for mark in test_seeded_bugs_are_found.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {mutant for mutant, _ in cases.args[1]} == set(MUTANTS)


def test_a_migration_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F16, F41: a database of an older schema, the power gone at any operation of its migration: the next start opens
    it, migrated, with every job.
    """  # fmt: skip
    old = tmp_path / "jobs.db"
    store = SqliteStore(str(old))
    store.open()
    store.submit([job_of(args=b"x" * size) for size in (10, 5_000, 10) * 10])
    (claimed,) = store.claim([Claim("cpu-1", "process", {"count": 10}, 10, NOW)])
    store.settle([end_of(job) for job in claimed])
    store.close()
    before = {"jobs.db": old.read_bytes()}

    added = ("ALTER TABLE jobs ADD COLUMN note TEXT", "UPDATE jobs SET note='old'", "CREATE TABLE notes (x)")
    monkeypatch.setattr(connection, "MIGRATIONS", (*MIGRATIONS, added))
    log = FileLog()
    try:
        migrated = SqliteStore(str(old), make=connect_to(log))
        migrated.open()
        migrated.close()
    finally:
        log.close()
    place = tmp_path / "image"
    place.mkdir()
    expected = inspect(before, place)
    assert len(expected.before) == 30
    disk = Disk(before)
    for cut, operation in enumerate(log.operations):
        disk.apply(operation)
        rng = random.Random(cut)
        for image in (*disk.clean(), disk.torn(rng), disk.torn(rng), disk.whole()):
            found = inspect(image, place)
            assert found.trouble is None, f"cut {cut}: {found.trouble}"
            assert (found.before, found.after) == (expected.before, expected.after), f"cut {cut}"
    assert len(log.operations) > 20
