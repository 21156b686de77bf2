"""F16: the power goes at any moment, and nothing acknowledged is lost: every operation of a run is cut."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from jobsvc.model.states import STATES
from jobsvc.ports import Durability
from jobsvc.store import opening
from jobsvc.store.sqlite import SqliteStore
from tests.faults.test_migrations import RELEASED, made
from tests.torture.filelog import Disk, FileLog, Image, Operation, files_in
from tests.torture.powercut import MUTANTS, Inspector, Report, image_folder, run
from tests.torture.powerrun import DATABASE
from tests.torture.recorded import connect_to

JOBS = 100
TORN_EVERY = 3
"""Torn images at every third cut and before each sync. Clean ones are made at every cut. By hand
`python -m tests.torture.powercut` makes two torn ones at every cut.
"""
JOBS_OF_PROCESS = 40
"""Each operation of these has a third image, which is never the same as another."""
JOBS_OF_A_MUTANT = 20
PATIENCE_S = 600
"""Many thousand small databases are opened: on a machine with other work this takes minutes."""
CORES = len(os.sched_getaffinity(0))


def explained(report: Report) -> str:
    return "\n".join([report.line(), *report.examples])


@pytest.mark.timeout(PATIENCE_S)
def test_power_loses_nothing_at_any_operation() -> None:
    """F16: with `power`, at every operation of a run of 100 jobs, clean and torn: each job accepted is there, each
    outcome is as it was told, nothing is half done.
    """  # fmt: skip
    report = run(seed=1, jobs=JOBS, durability="power", torn=1, every=TORN_EVERY, processes=CORES)
    assert not report.void, explained(report)
    assert not report.red, explained(report)
    assert report.lost_calls_max == {"whole": 0, "clean": 0, "torn": 0}


@pytest.mark.timeout(PATIENCE_S)
def test_process_loses_only_what_came_since_the_log_was_synced() -> None:
    """F16: with `process` a power cut damages nothing and loses no more than what came since the last checkpoint;
    the death of the process at any operation loses nothing.
    """  # fmt: skip
    report = run(
        seed=2, jobs=JOBS_OF_PROCESS, durability="process", torn=1, every=TORN_EVERY, processes=CORES
    )
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
    report = run(
        seed=3, jobs=JOBS_OF_A_MUTANT, durability="power", mutate=mutant, torn=1, enough=frozenset(finding)
    )
    assert report.accepted >= JOBS_OF_A_MUTANT <= report.ended
    assert report.red
    assert {kind for kind, images in report.findings.items() if images} >= finding, explained(report)
    assert report.examples


def test_every_seeded_bug_is_tried() -> None:
    """A bug added to the list is one more case above."""
    (cases,) = (mark for mark in test_seeded_bugs_are_found.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {mutant for mutant, _ in cases.args[1]} == set(MUTANTS)


def opens_everywhere(before: Image, operations: list[Operation]) -> int:
    """Every image of every cut is opened, with the jobs that were there before; how many those are."""
    with image_folder() as place:
        look = Inspector(place)
        expected = look(before)
        disk = Disk(before)
        for cut, operation in enumerate(operations):
            disk.apply(operation)
            rng = random.Random(cut)
            for image in (*disk.clean(), disk.torn(rng), disk.torn(rng), disk.whole()):
                found = look(image)
                assert found.trouble is None, f"cut {cut}: {found.trouble}"
                assert (found.before, found.after) == (expected.before, expected.after), f"cut {cut}"
    return len(expected.before)


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_new_database_cut_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    """F16, F41: the power goes at any operation of the first start: the next start opens what it finds."""
    log = FileLog()
    rename = Path.rename

    def renamed(self: Path, to: str) -> Path:
        log.record(Operation("rename", self.name, to=Path(to).name))
        return rename(self, to)

    def flushed(path: Path) -> None:
        log.record(Operation("sync_folder") if path.is_dir() else Operation("sync", path.name))

    monkeypatch.setattr(opening, "connect", connect_to(log))
    monkeypatch.setattr(opening, "flush", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    store = SqliteStore(str(tmp_path / DATABASE), durability, make=connect_to(log))
    try:
        store.open()
        store.close()
    finally:
        log.close()
        monkeypatch.undo()
    kinds = {operation.kind for operation in log.operations}
    assert kinds == {"create", "write", "truncate", "sync", "rename", "delete", "sync_folder"}
    assert opens_everywhere({}, log.operations) == 0


@pytest.mark.parametrize("version", RELEASED)
def test_a_migration_cut_anywhere(tmp_path: Path, version: int) -> None:
    """F16, F41: a database of an older schema, the power gone at any operation of its migration: the next start opens
    it, migrated, with every job.
    """  # fmt: skip
    old = tmp_path / DATABASE
    made(old, RELEASED[version])
    before = files_in(tmp_path)
    log = FileLog()
    try:
        migrated = SqliteStore(str(old), make=connect_to(log))
        migrated.open()
        assert migrated.opened.migrated_from == version
        migrated.close()
    finally:
        log.close()
    assert len(log.operations) > 20
    assert opens_everywhere(before, log.operations) == len(STATES)
