"""What a run will do: the jobs, and the deeds of the nemesis. The same seed gives the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final, Literal

import msgspec

CancelMode = Literal["polite", "deadline", "now"]
DeedKind = Literal[
    "kill_daemon",
    "kill_everything",
    "crash_point",
    "kill_worker",
    "stop_worker",
    "drain",
    "double_start",
    "kill_guard",
]
KILLS: Final = frozenset(("kill_daemon", "kill_everything", "crash_point", "kill_worker"))
"""Deeds that count as kills. The others come on top, one to four kills."""
KILL_WEIGHTS: Final[dict[DeedKind, int]] = {
    "kill_daemon": 8, "kill_everything": 2, "crash_point": 4, "kill_worker": 6,
}  # fmt: skip
OTHERS: Final[tuple[DeedKind, ...]] = ("drain", "stop_worker", "double_start", "kill_guard")
KILLS_TO_ONE_OTHER: Final = 4
CRASHES: Final = (
    "CP1", "CP2", "CP3", "CP4", "CP5", "CP6", "CP7", "CP8", "CP9", "CP10", "CP12", "CP13", "CP15", "CP16",
)  # fmt: skip
"""Those that jobs under way will come by. CP14 needs an old database, CP18 old jobs."""
PASSAGES_MAX: Final = 12
PAUSE_S: Final = (0.2, 1.6)
"""From ready to the next deed."""
MEAN_DEED_S: Final = 2.2
"""About what one deed takes, with pause and restart: only to spread the submits over the run."""
SLOW_S: Final = (0.1, 0.8)
CANCELLED_S: Final = 2.5
OVERDUE_S: Final = 2.0
"""Longer than its timeout (0.3 s) and the grace that a process is given (1 s)."""


class JobSpec(msgspec.Struct, frozen=True):
    """One job to submit. `mark` is its idempotency key and stands in its arguments.

    `ends`: the final states it may come to; `value`: what its result holds, if it succeeds; `cancel`: the mode in
    which a client cancels it once it runs; `stream`: a client follows its events.
    """

    mark: str
    task: str
    args: dict[str, Any]
    fields: dict[str, Any] = {}
    ends: tuple[str, ...] = ("succeeded",)
    value: int | None = None
    cancel: CancelMode | None = None
    stream: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The body of its submit."""
        return {"task": self.task, "args": {"mark": self.mark, **self.args}, "key": self.mark, **self.fields}


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


def draw(seed: int, jobs: int, kills: int) -> Plan:
    """The plan of this seed."""
    random = Random(seed)
    return Plan(
        seed, tuple(_job(random, f"{seed}-{i}", i) for i in range(jobs)), tuple(_deeds(random, kills))
    )


def _job(random: Random, mark: str, n: int) -> JobSpec:  # noqa: PLR0911 - one return for each kind of job
    value = 3 * n + 1
    stream = random.random() < 0.1
    seconds = round(random.uniform(*SLOW_S), 2)
    kind = random.choices(
        ("quick", "slow", "flaky", "failing", "once", "cancelled", "overdue", "program", "leaver"),
        (53, 17, 8, 4, 5, 6, 2, 4, 1),
    )[0]
    executor = random.choice(("on_process", "on_thread", "on_loop"))
    if kind == "slow":
        return JobSpec(mark, executor, {"n": n, "seconds": seconds}, value=value, stream=stream)
    if kind == "flaky":
        fields = {"retries": 3, "backoff": {"base_s": 0.2, "max_s": 1}}
        return JobSpec(mark, "flaky", {"n": n, "failures": random.randint(1, 3)}, fields, value=value)
    if kind == "failing":
        fields = {"retries": 1, "backoff": {"base_s": 0.1}}
        return JobSpec(mark, "flaky", {"n": n, "failures": 9}, fields, ends=("failed",))
    if kind == "once":
        args = {"n": n, "seconds": seconds}
        return JobSpec(mark, "once", args, ends=("succeeded", "failed"), value=value)
    if kind == "cancelled":
        args = {"n": n, "seconds": CANCELLED_S}
        mode: CancelMode = (
            random.choice(("polite", "deadline", "now")) if executor == "on_process" else "polite"
        )
        fields = {"timeouts": {"run": 60}}
        return JobSpec(mark, executor, args, fields, ("cancelled", "succeeded"), value, mode, stream)
    if kind == "overdue":
        fields = {"timeouts": {"run": 0.3}, "retries": 1, "backoff": {"base_s": 0.1}}
        return JobSpec(
            mark, random.choice(("deaf", "deaf_thread")), {"n": n, "seconds": OVERDUE_S}, fields, ("failed",)
        )
    if kind == "program":
        return JobSpec(mark, "program", {"seconds": seconds}, stream=stream)
    if kind == "leaver":
        return JobSpec(mark, "leaver", {"n": n, "seconds": seconds}, value=value)
    return JobSpec(mark, executor, {"n": n}, value=value, stream=stream)


def _deeds(random: Random, kills: int) -> Iterator[DeedSpec]:
    for place in range(kills):
        kind = random.choices(list(KILL_WEIGHTS), list(KILL_WEIGHTS.values()))[0]
        yield _deed(random, kind)
        if place % KILLS_TO_ONE_OTHER == KILLS_TO_ONE_OTHER - 1:
            yield _deed(random, OTHERS[place // KILLS_TO_ONE_OTHER % len(OTHERS)])


def _deed(random: Random, kind: DeedKind) -> DeedSpec:
    wish = ""
    if kind == "crash_point":
        point = random.choice(CRASHES)
        once = point in ("CP6", "CP13", "CP15", "CP16")
        wish = point if once else f"{point}:{random.randint(1, PASSAGES_MAX)}"
    return DeedSpec(kind, round(random.uniform(*PAUSE_S), 3), wish, random.randrange(1_000))
