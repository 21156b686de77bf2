"""The power goes at every single operation of a run: is what is left on the disk what was promised?

For each operation of a run of jobs (`powerrun`) the images a disk may then hold are built (`filelog`): `whole`, all
that was written (the process died, not the machine); `clean`, what was synced; `torn`, that and parts of the rest.
Each is opened by the store as a daemon would open it after the cut, checked, recovered, and compared with what had
been acknowledged before that operation: nothing lost (C1), nothing unexpected (C2), every outcome as it was told
(C5), no final state changed and nothing left active (C6), and as a whole a state that the database once had.

    python -m tests.torture.powercut --seed 1 --jobs 100
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from jobsvc.model.job import Job
from jobsvc.model.states import ACTIVE, FINAL
from jobsvc.ports import Durability, JobFilter
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import NOW
from tests.torture.filelog import Disk, Image
from tests.torture.powerrun import DATABASE, EMPTY, Mutation, Outcome, Played, contents, play

TORN: Final = 2
"""Torn images of each cut."""
EVERY: Final = 1
"""At which cuts torn images are made: at each. The clean ones are made at each in any case."""
EXAMPLES_MAX: Final = 20
MEMORY_FOLDER: Final = Path("/dev/shm")
"""Images live for milliseconds: in memory, where there is such a folder."""
RECOVERED_AT: Final = NOW + 86_400_000_000

Kind = Literal["whole", "clean", "torn"]
FINDINGS: Final = ("corrupt", "lost", "unexpected", "changed", "illegal", "behind", "mixed")

MUTANTS: Final[Mapping[str, Mutation]] = {
    "M2": Mutation(edit=lambda sql: sql.replace("synchronous=FULL", "synchronous=NORMAL")),
    "M3": Mutation(edit=lambda sql: sql.replace("synchronous=FULL", "synchronous=OFF")),
    "reply-before-commit": Mutation(early=True),
    "no-transaction": Mutation(edit=lambda sql: "SELECT 1" if sql in ("BEGIN IMMEDIATE", "COMMIT") else sql),
}
"""Seeded bugs by name, each of which must be found. M2, M3: `power` is said and NORMAL, OFF is done."""


class Report(msgspec.Struct, kw_only=True):
    """What a run found. `findings`: in how many images each kind; `looked_at`: images that were not the same as one
    before; `lost_calls_max`: the most acknowledged calls that one image was behind (with `process` that is allowed for
    what came since the last checkpoint).
    """  # fmt: skip

    seed: int
    jobs: int
    durability: Durability
    mutant: str | None
    sqlite_written_by: str
    sqlite_read_by: str
    operations: int = 0
    cuts: int = 0
    looked_at: int = 0
    images: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(("whole", "clean", "torn"), 0)
    )
    findings: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FINDINGS, 0))
    lost_calls_max: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(("whole", "clean", "torn"), 0)
    )
    accepted: int = 0
    ended: int = 0
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def red(self) -> bool:
        """Whether anything promised did not hold."""
        return any(self.findings.values())

    @property
    def void(self) -> bool:
        """Whether less was tested than is said: not every operation cut, or not every job accepted and ended."""
        return self.cuts != self.operations + 1 or self.accepted < self.jobs or self.ended < self.jobs

    def line(self) -> str:
        """The report in one line."""
        found = (
            ", ".join(f"{count} {kind}" for kind, count in self.findings.items() if count) or "nothing lost"
        )
        return (
            f"power cuts: {self.jobs} jobs, durability {self.durability}, {self.cuts} cuts, "
            f"{sum(self.images.values())} images: {'void' if self.void else found}"
        )

    def add(self, part: Report) -> None:
        """Take in what another process found."""
        self.cuts += part.cuts
        self.looked_at += part.looked_at
        for kind in self.images:
            self.images[kind] += part.images[kind]
            self.lost_calls_max[kind] = max(self.lost_calls_max[kind], part.lost_calls_max[kind])
        for kind in self.findings:
            self.findings[kind] += part.findings[kind]
        self.examples = (self.examples + part.examples)[:EXAMPLES_MAX]


# -- what an image holds ---------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What the store made of an image. `trouble`: why it could not be used; `before`, `after`: rows by id."""

    trouble: str | None
    contents: bytes = b""
    before: Mapping[bytes, Job] = {}
    after: Mapping[bytes, Job] = {}


@contextmanager
def image_folder() -> Iterator[Path]:
    """An empty folder for images, in memory where that is possible."""
    where = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="jobsvc-powercut-", dir=where) as name:
        yield Path(name)


class Inspector:
    """Looks at images in a folder of its own. The same image is looked at once: between two syncs a clean one stays as
    it is, and a torn one is often what a clean one was.
    """  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[bytes, Found] = {}

    @property
    def looked_at(self) -> int:
        """How many images there were, each counted once."""
        return len(self._seen)

    def __call__(self, image: Image) -> Found:
        digest = _digest(image)
        if digest not in self._seen:
            self._seen[digest] = inspect(image, self._folder)
        return self._seen[digest]


def inspect(image: Image, folder: Path) -> Found:
    """Open an image as a daemon would after the cut: the store, its check, its recovery."""
    for name, data in image.items():
        (folder / name).write_bytes(data)
    store = SqliteStore(str(folder / DATABASE))
    try:
        store.open()
        try:
            (verdict,) = store._db.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                return Found(f"integrity_check: {verdict}")
            said, before = contents(store._db), _rows(store)
            store.recover(RECOVERED_AT)
            return Found(None, said, before, _rows(store))
        finally:
            store.close()
    except Exception as error:  # noqa: BLE001 - whatever a damaged database makes the store raise is a finding
        return Found(f"{type(error).__name__}: {error}")
    finally:
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _rows(store: SqliteStore) -> dict[bytes, Job]:
    return {job.id: job for job in store.reads.list(JobFilter(limit=1_000_000, args=True, result=True)).jobs}


# -- what it should hold ---------------------------------------------------------------------------------------------


class Promise:
    """What the ledger says about images: acknowledged calls must be there, those being answered may."""

    def __init__(self, played: Played) -> None:
        self._ledger = played.ledger
        self._asked = [entry.asked_at for entry in played.ledger]
        self._told = [entry.told_at for entry in played.ledger]
        self._known: dict[int, _Facts] = {}
        self._states = [EMPTY, *(entry.contents for entry in played.ledger)]

    def told(self, cut: int) -> int:
        """How many calls were acknowledged when so many operations were done."""
        return bisect_right(self._told, cut)

    def begun(self, cut: int) -> int:
        """How many had begun to write, or were answered without writing."""
        return max(bisect_left(self._asked, cut), self.told(cut))

    def behind(self, found: Found, cut: int) -> int:
        """How many acknowledged calls are missing; 0 too when the database never held just this."""
        calls = self._last(found, self.begun(cut))
        return 0 if calls is None else max(0, self.told(cut) - calls)

    def _last(self, found: Found, may: int) -> int | None:
        """After how many calls the database held just this, the last time."""
        return next((calls for calls in range(may, -1, -1) if self._states[calls] == found.contents), None)

    def broken(self, found: Found, must: int, may: int) -> Iterator[tuple[str, str]]:
        """What does not hold, when the first `must` calls have to be there and those up to `may` can be."""
        if found.trouble is not None:
            yield "corrupt", found.trouble
            return
        promised, possible = self._facts(must), self._facts(may)
        for job_id in promised.accepted - possible.removed - found.before.keys():
            yield "lost", f"job {job_id.hex()} was accepted and is gone"
        for job_id in found.before.keys() - possible.accepted | found.before.keys() & promised.removed:
            yield "unexpected", f"job {job_id.hex()} is there"
        for job_id, outcome in promised.outcomes.items():
            if (job := found.before.get(job_id)) is not None and _outcome(job) != outcome:
                yield "changed", f"job {job_id.hex()} is {job.state} with another outcome than was told"
        yield from _recovered(found)
        calls = self._last(found, may)
        if calls is None:
            yield "mixed", "the database never held just this"
        elif calls < must:
            yield "behind", f"{must - calls} acknowledged calls are missing"

    def _facts(self, calls: int) -> _Facts:
        if calls not in self._known:
            self._known[calls] = self._count(calls)
        return self._known[calls]

    def _count(self, calls: int) -> _Facts:
        facts = _Facts(set(), {}, set())
        for entry in self._ledger[:calls]:
            facts.accepted.update(entry.accepted)
            facts.outcomes.update(entry.outcomes)
            facts.removed.update(entry.removed)
        return facts


class _Facts(NamedTuple):
    accepted: set[bytes]
    outcomes: dict[bytes, Outcome]
    removed: set[bytes]


def _outcome(job: Job) -> Outcome:
    return (job.state, job.result, job.error)


def _recovered(found: Found) -> Iterator[tuple[str, str]]:
    """C6: recovery puts back what was active and touches nothing else."""
    if found.before.keys() != found.after.keys():
        yield "illegal", "recovery added or removed jobs"
        return
    for job_id, job in found.after.items():
        before = found.before[job_id]
        if job.state in ACTIVE:
            yield "illegal", f"job {job_id.hex()} is {job.state} after recovery"
        elif before.state in FINAL and job != before:
            yield "illegal", f"job {job_id.hex()} had ended as {before.state} and was changed to {job.state}"


# -- every cut -------------------------------------------------------------------------------------------------------


class Floor:
    """With `process`: up to where everything is on the disk for certain, that is the last sync of the log."""

    def __init__(self) -> None:
        self.operations = 0
        self._synced = 0

    def passed(self, at: int, kind: str, file: str, *, folder_safe: bool) -> None:
        """Operation number `at` was done."""
        if kind == "sync" and file == f"{DATABASE}-wal":
            self._synced = at
        if folder_safe:  # a new log is found again only once its folder was synced
            self.operations = self._synced


class Cuts(NamedTuple):
    """Which images are made of a run.

    `torn`: how many torn ones at a cut; `every`: at every so many cuts, and always at the last before a sync, when
    most is at stake; `share`, `shares`: this part of the cuts is done here; `enough`: stop once all of these were
    found, for a seeded bug needs to be found once.
    """

    torn: int = TORN
    every: int = EVERY
    share: int = 0
    shares: int = 1
    enough: frozenset[str] = frozenset()

    def of(self, disk: Disk, report: Report, cut: int, *, before_sync: bool) -> Iterator[tuple[Kind, Image]]:
        """The images of one cut."""
        yield from (("clean", image) for image in disk.clean())
        if before_sync or cut % self.every == 0:
            rng = random.Random(f"{report.seed}:{cut}")
            yield from (("torn", disk.torn(rng)) for _ in range(self.torn))
        if report.durability == "process":  # with `power` it is not even allowed to lose what is torn
            yield "whole", disk.whole()

    def found_enough(self, report: Report) -> bool:
        """Whether there is nothing left to look for."""
        return bool(self.enough) and all(report.findings[kind] for kind in self.enough)


def cut_all(played: Played, report: Report, cuts: Cuts) -> Report:
    """Cut a run at every operation, or at a share of them, and add what was found to `report`."""
    promise, disk, floor = Promise(played), Disk(played.before), Floor()
    operations = played.operations
    with image_folder() as folder:
        look = Inspector(folder)
        for cut in range(len(operations) + 1):
            if cut:
                done = operations[cut - 1]
                disk.apply(done)
                floor.passed(cut - 1, done.kind, done.file, folder_safe=disk.folder_safe)
            if cut % cuts.shares != cuts.share:
                continue
            report.cuts += 1
            before_sync = cut < len(operations) and operations[cut].kind == "sync"
            for kind, image in cuts.of(disk, report, cut, before_sync=before_sync):
                report.images[kind] += 1
                kept = kind == "whole" or report.durability == "power"
                must = promise.told(cut if kept else floor.operations)
                _judge(report, promise, look(image), cut, kind, must)
            if cuts.found_enough(report):
                break
    report.looked_at += look.looked_at
    return report


def _judge(report: Report, promise: Promise, found: Found, cut: int, kind: Kind, must: int) -> None:
    broken = list(promise.broken(found, must, promise.begun(cut)))
    for finding in {finding for finding, _ in broken}:
        report.findings[finding] += 1
    room = EXAMPLES_MAX - len(report.examples)
    report.examples += [f"cut {cut}, {kind}: {finding}: {what}" for finding, what in broken[:room]]
    report.lost_calls_max[kind] = max(report.lost_calls_max[kind], promise.behind(found, cut))


def _digest(image: Image) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(image):
        digest.update(b"%d:%s" % (len(image[name]), name.encode()))
        digest.update(image[name])
    return digest.digest()


def run(
    seed: int,
    jobs: int,
    durability: Durability,
    mutate: str | None = None,
    *,
    torn: int = TORN,
    every: int = EVERY,
    processes: int = 1,
    enough: frozenset[str] = frozenset(),
) -> Report:
    """Play a run and cut it at every operation.

    Args:
        seed: of the run and of the torn images.
        jobs: how many are submitted.
        durability: what is promised.
        mutate: a name of `MUTANTS`.
        torn: torn images of a cut.
        every: torn images are made at every so many cuts, and at the last before a sync.
        processes: among which the cuts are divided.
        enough: stop once all of these were found; of one process.
    """
    import apsw

    with image_folder() as folder:
        played = play(folder, seed, jobs, durability, MUTANTS[mutate] if mutate else Mutation())

    def blank() -> Report:
        return Report(
            seed=seed, jobs=jobs, durability=durability, mutant=mutate,
            sqlite_written_by=apsw.sqlite_lib_version(), sqlite_read_by=sqlite3.sqlite_version,
        )  # fmt: skip

    report = blank()
    report.operations = len(played.operations)
    report.accepted = sum(len(entry.accepted) for entry in played.ledger)
    report.ended = sum(len(entry.outcomes) for entry in played.ledger)
    if processes == 1:
        return cut_all(played, report, Cuts(torn, every, enough=enough))
    # Spawned, not forked: whoever calls may have threads.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = [
            pool.submit(cut_all, played, blank(), Cuts(torn, every, share, processes))
            for share in range(processes)
        ]
        for part in parts:
            report.add(part.result())
    return report


def main() -> int:
    """Cut one run; prints the report as JSON, then in one line. 0 = as promised, 1 = it is not, 2 = nothing proved."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.powercut", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--durability", choices=("power", "process"), default="power")
    parser.add_argument("--torn", type=int, default=TORN, help="torn images of each cut")
    parser.add_argument("--every", type=int, default=EVERY, help="torn images at every so many cuts")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="put this bug in first")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    report = run(
        given.seed, given.jobs, given.durability, given.mutant,
        torn=given.torn, every=given.every, processes=given.processes,
    )  # fmt: skip
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n" + report.line() + "\n")
    return 2 if report.void else int(report.red)


if __name__ == "__main__":
    sys.exit(main())
