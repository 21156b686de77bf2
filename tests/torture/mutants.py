"""Seeded bugs. Each must turn the report red in a named check: a bug that stays green is a hole in the checker.

A bug is a change of text in a copy of the product, and the directed scenario that brings it out. M1 to M12 of the
design, as far as one node on SQLite has them: M2 and M3, which only a power cut brings out, stand in `powercut`, with
two more of that kind. There are no leases (M6), so nobody who has to fence himself (M8), and no artifacts (M11): for
M6 stand `recovery-forgets` and `on-lost-ignored`, for M8 `epoch-not-raised` and `retry-beside-its-orphan`, for M11
`numbers-left-out`: something is referred to that is not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.torture import late_results, scenarios
from tests.torture.scenarios import Scenario
from tests.torture.sut import ROOT


class Change(NamedTuple):
    """`old` must stand in `file`, below `jobsvc`, exactly once."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One bug: what is wrong, how it is put in, what brings it out, and the checks that must turn red."""

    words: str
    changes: tuple[Change, ...]
    scenario: Scenario
    red: frozenset[str]


DEAF_GUARD: Final = Change(
    "worker/guard.py",
    'How many there were."""\n',
    'How many there were."""\n    return 0\n',
)  # fmt: skip

MUTANTS: Final[Mapping[str, Mutant]] = {
    "M1-reply-before-commit": Mutant(
        "a submit is acknowledged before it is committed",
        (
            Change(
                "engine/engine.py",
                "errbackArgs=(jobs, sent)\n        )\n        return answer\n",
                "errbackArgs=(jobs, sent)\n        )\n        answer.addErrback(lambda _: None)\n"
                "        from twisted.internet.defer import succeed\n"
                "        return succeed([Submitted(job) for job in jobs])\n",
            ),
        ),
        scenarios.played(scenarios.submit_not_committed),
        frozenset(("C1",)),
    ),
    "M4-outcome-without-epoch": Mutant(
        "an outcome is written whatever its epoch",
        (
            Change("store/statements.py", "jobs.no=v.column6 AND jobs.epoch=?4 AND", "jobs.no=v.column6 AND ?4 AND"),
            Change("store/statements.py", "WHERE no=?11 AND epoch=?4 AND", "WHERE no=?11 AND ?4 AND"),
        ),
        late_results.results_that_come_late,
        frozenset(("C5",)),
    ),
    "M5-outcome-without-owner": Mutant(
        "an outcome is written whoever brings it",
        (
            Change("store/statements.py", "jobs.owner=?5 AND jobs.{", "?5 IS NOT NULL AND jobs.{"),
            Change("store/statements.py", "epoch=?4 AND owner=?5 AND {", "epoch=?4 AND ?5 IS NOT NULL AND {"),
        ),
        late_results.results_that_come_late,
        frozenset(("C5",)),
    ),
    "M7-old-workers-live-on": Mutant(
        "workers outlive their daemon, and recovery does not wait for their end",
        (
            Change("worker/launch.py", "    set_process(libc, PR_SET_PDEATHSIG, SIGKILL)\n", ""),
            Change("worker/compute.py", "LinkClosed:\n            os._exit(1)", "LinkClosed:\n            return"),
            Change("worker/link.py", "OSError:\n                os._exit(1)", "OSError:\n                return"),
            DEAF_GUARD,
        ),
        scenarios.played(scenarios.killed_while_running),
        frozenset(("C8", "C15")),
    ),
    "M9-key-not-unique": Mutant(
        "a key does not keep a second job away",
        (
            Change("store/submitting.py", "held = _held(session, reads, keyed)", "held: dict[Any, Any] = {}"),
            Change("store/schema.py", "CREATE UNIQUE INDEX jobs_key", "CREATE INDEX jobs_key"),
        ),
        scenarios.played(scenarios.one_key),
        frozenset(("C3",)),
    ),
    "M10-end-before-commit": Mutant(
        "waiters hear of an outcome before it is committed",
        (
            Change(
                "engine/endings.py",
                '        crash("CP8")\n',
                '        crash("CP8")\n        self._settled([True] * len(ends), ends)\n',
            ),
        ),
        scenarios.played(scenarios.outcome_not_committed),
        frozenset(("C6",)),
    ),
    "M12-wall-clock-timeouts": Mutant(
        "timeouts follow the wall clock",
        (Change("tap.py", ".seconds = monotonic", '.seconds = __import__("time").time'),),
        scenarios.played(scenarios.clock_step),
        frozenset(("C5",)),
    ),
    "cancelled-too-early": Mutant(
        "`cancelled` is written when it is asked for, not when the code has stopped",
        (
            Change(
                "engine/stops.py",
                "        elif accepted[0]:\n            active.seat.worker.send(",
                '        elif accepted[0] and stop.reason == "cancel_asked":\n'
                "            self._endings.finish([(active, verdict.stopped(active, None, self._uniform))])\n"
                "        elif accepted[0]:\n            active.seat.worker.send(",
            ),
        ),
        scenarios.played(scenarios.cancel_of_one_that_is_deaf),
        frozenset(("C10",)),
    ),
    "recovery-forgets": Mutant(
        "what ran when the daemon died is never queued again",
        (
            Change(
                "store/statements.py",
                'INTERRUPTED: Final = f"SELECT {job_array()} FROM jobs WHERE {ACTIVE_WHEN}"',
                "INTERRUPTED: Final = f\"SELECT {job_array()} FROM jobs WHERE state='stopping'\"",
            ),
        ),
        scenarios.played(scenarios.killed_while_running, quiet_s=scenarios.FORGOTTEN_S),
        frozenset(("C1",)),
    ),
    "on-lost-ignored": Mutant(
        "a job that must not run twice is queued again after the daemon's death",
        (Change("store/recovery.py", '.on_lost == "fail"', '.on_lost == "never"'),),
        scenarios.played(scenarios.killed_while_running),
        frozenset(("C9",)),
    ),
    "retry-beside-its-orphan": Mutant(
        "a retry does not wait for the thread that its timed-out attempt still has",
        (Change("engine/stops.py", 'how.reason, how.delay_s = "orphan_running", None', "how.delay_s = 0.0"),),
        scenarios.played(scenarios.thread_past_its_timeout),
        frozenset(("C8",)),
    ),
    "epoch-not-raised": Mutant(
        "what is claimed again keeps its epoch",
        (Change("store/statements.py", "epoch=epoch+1,attempt=attempt+1", "epoch=max(epoch,1),attempt=attempt+1"),),
        scenarios.played(scenarios.killed_while_running, quiet_s=scenarios.FORGOTTEN_S),
        frozenset(("C9",)),
    ),
    "numbers-left-out": Mutant(
        "after a restart the events of a job go on with a number that is not the next",
        (Change("store/recovery.py", "last_events.get(job.no, 0)) + 1", "last_events.get(job.no, 0)) + 2"),),
        scenarios.played(scenarios.killed_while_running),
        frozenset(("C13",)),
    ),
    "stop-counts-as-loss": Mutant(
        "what a stop of the daemon has stopped is recorded as lost",
        (Change("engine/verdict.py", '_again(active, "drained", "stopped', '_again(active, "lost", "stopped'),),
        scenarios.played(scenarios.stopped_while_running),
        frozenset(("C11",)),
    ),
    "no-sweep-at-start": Mutant(
        "a start does not end what earlier ones have left",
        (Change("pool/guard.py", '"clear", node, "the', '"clear", "nobody", "the'),),
        scenarios.played(scenarios.all_killed_at_once),
        frozenset(("C15",)),
    ),
    "secret-in-the-open": Mutant(
        "what a job prints is kept with its secrets",
        (
            Change("worker/redaction.py", "text = text.replace(form, MASK)", "text = str(text)"),
            Change("worker/redaction.py", "data = data.replace(escaped, MASK.encode())", "data = bytes(data)"),
        ),
        scenarios.played(scenarios.a_secret),
        frozenset(("C15",)),
    ),
    "guard-does-not-sweep": Mutant(
        "what a job has left behind outlives the daemon",
        (DEAF_GUARD,),
        scenarios.played(scenarios.killed_while_running),
        frozenset(("C15",)),
    ),
}  # fmt: skip
"""By name."""


class NotThere(Exception):
    """The text that a mutant changes is not there, or more than once: the mutant must follow the product."""


def mutated(mutant: Mutant, folder: Path) -> Path:
    """A copy of the product with the bug in it: the folder that holds its `jobsvc`."""
    copy = folder / "source"
    shutil.copytree(ROOT / "jobsvc", copy / "jobsvc")
    for change in mutant.changes:
        path = copy / "jobsvc" / change.file
        text = path.read_text()
        if text.count(change.old) != 1:
            raise NotThere(f"{change.file}: {text.count(change.old)} times: {change.old!r}")
        path.write_text(text.replace(change.old, change.new))
    return copy
