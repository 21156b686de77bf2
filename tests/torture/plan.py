"""What a run will do: the jobs, and the deeds of the nemesis. The same seed gives the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, Literal

import msgspec

from tests.torture.kinds import JobSpec, Upload, draw_job

DeedKind = Literal[
    "kill_daemon",
    "kill_everything",
    "crash_point",
    "kill_worker",
    "stop_worker",
    "drain",
    "double_start",
    "kill_guard",
    "freeze_daemon",
    "drain_twice",
    "few_descriptors",
    "step_clock",
    "full_disk",
]
KILLS: Final = frozenset(("kill_daemon", "kill_everything", "crash_point", "kill_worker"))
"""Deeds that count as kills. The others come on top, one to two kills."""
KILL_WEIGHTS: Final[dict[DeedKind, int]] = {
    "kill_daemon": 8, "kill_everything": 2, "crash_point": 4, "kill_worker": 6,
}  # fmt: skip
OTHERS: Final[tuple[DeedKind, ...]] = (
    "drain", "step_clock", "freeze_daemon", "stop_worker", "drain_twice", "double_start", "kill_guard",
)  # fmt: skip
"""In turn. On demand come `full_disk`, which needs a disk of a size of its own, and `few_descriptors`: a program that
the daemon has no descriptor to start fails its job, which the checks call a violation.
"""
KILLS_TO_ONE_OTHER: Final = 2
CRASHES: Final = (
    "CP1", "CP2", "CP3", "CP4", "CP5", "CP6", "CP7", "CP8", "CP9", "CP10", "CP12", "CP13", "CP15", "CP16",
)  # fmt: skip
"""Those that jobs under way will come by. CP14 needs an old database, CP18 old jobs."""
PASSAGES_MAX: Final = 12
PAUSE_S: Final = (0.2, 1.6)
"""From ready to the next deed."""
MEAN_DEED_S: Final = 2.2
"""About what one deed takes, with pause and restart: only to spread the submits over the run."""
BATCH: Final = (3, 12)
BATCHED: Final = 0.02
"""The share of jobs with which an upload of several begins."""


class DeedSpec(msgspec.Struct, frozen=True):
    """One deed of the nemesis, `after_s` after the daemon was last ready."""

    kind: DeedKind
    after_s: float
    wish: str = ""
    """Of a crash point: as `JOBSVC_CRASH` takes it."""
    number: int = 0
    """Chooses among workers."""


class Plan(msgspec.Struct, frozen=True):
    """All of it."""

    seed: int
    jobs: tuple[JobSpec, ...]
    deeds: tuple[DeedSpec, ...]

    @property
    def planned_kills(self) -> int:
        """How many kills there are to be."""
        return sum(deed.kind in KILLS for deed in self.deeds)

    @property
    def load_s(self) -> float:
        """Over how long the submits are spread."""
        return max(1.0, len(self.deeds) * MEAN_DEED_S)


def draw(seed: int, jobs: int, kills: int, more: Sequence[DeedKind] = ()) -> Plan:
    """The plan of this seed; `more`: kinds of deeds that are done beside the usual ones."""
    random = Random(seed)
    drawn = [draw_job(random, f"{seed}-{i}", i) for i in range(jobs)]
    return Plan(seed, tuple(_batched(random, drawn)), tuple(_deeds(random, kills, (*OTHERS, *more))))


def _batched(random: Random, jobs: list[JobSpec]) -> Iterator[JobSpec]:
    """Some neighbours go in one upload, all or nothing or line by line; each bears the name of its batch."""
    upload: Upload = "bulk"
    left, batch = 0, ""
    for job in jobs:
        if not left and random.random() < BATCHED:
            left, batch = random.randint(*BATCH), f"batch-{job.mark}"
            upload = random.choice(("bulk", "atomic"))
        if left:
            left -= 1
            fields = job.fields | {"labels": {"batch": batch}}
            yield msgspec.structs.replace(job, upload=upload, batch=batch, fields=fields)
        else:
            yield job


def _deeds(random: Random, kills: int, others: Sequence[DeedKind]) -> Iterator[DeedSpec]:
    for place in range(kills):
        kind = random.choices(list(KILL_WEIGHTS), list(KILL_WEIGHTS.values()))[0]
        yield _deed(random, kind)
        if place % KILLS_TO_ONE_OTHER == KILLS_TO_ONE_OTHER - 1:
            yield _deed(random, others[place // KILLS_TO_ONE_OTHER % len(others)])


def _deed(random: Random, kind: DeedKind) -> DeedSpec:
    wish = ""
    if kind == "crash_point":
        point = random.choice(CRASHES)
        once = point in ("CP6", "CP13", "CP15", "CP16")
        wish = point if once else f"{point}:{random.randint(1, PASSAGES_MAX)}"
    return DeedSpec(kind, round(random.uniform(*PAUSE_S), 3), wish, random.randrange(1_000))
