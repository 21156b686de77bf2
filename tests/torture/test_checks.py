"""Each check, on a good history and on bad ones made up for it: green on the first, red on each of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.torture.checks import CHECKS, check
from tests.torture.checks.finding import EXAMPLES_MAX, Finding, percentiles
from tests.torture.evidence import AttemptRow, Evidence, Hygiene, Row, StateEvent
from tests.torture.kinds import JobSpec
from tests.torture.records import Deed, Effect, Kind, Life, Line, Op, Outcome

S = 1_000_000_000
"""A second in ns; the wall clock of these histories shows the same moment in µs."""
RESULT = json.dumps({"mark": "a", "value": 4, "epoch": 2}, separators=(",", ":"))


def op(kind: Kind, invoked_s: float, ended_s: float, outcome: Outcome = "ok", **seen: Any) -> Op:
    """An operation of client 1 on the job of key `a`."""
    job = seen.pop("job", "job-a")
    line = Line(0, outcome, int(ended_s * S), int(ended_s * 1e6), job=job, **seen)
    client = seen.get("client", 1)
    return Op(
        kind,
        client,
        "a" if kind == "submit" else "",
        job,
        int(invoked_s * S),
        line.wall,
        line.at,
        outcome,
        line,
    )


def effect(what: Any, epoch: int, at_s: float, outcome: str | None = None, pid: int = 0) -> Effect:
    """A line of that job."""
    life = f"life.{min(epoch, 2) - 1}."  # the first attempt began in the first life, the others in the second
    return Effect(what, "a", "job-a", epoch, pid or epoch, life, int(at_s * S), int(at_s * 1e6), outcome)


def good() -> Evidence:
    """One job, whose first attempt is cut off by a kill of the daemon at 3 s; ready again at 4 s; done at 6 s."""
    row = Row(
        id="job-a", mark="a", task="on_process", executor="process", state="succeeded", reason=None, revision=5,
        epoch=2, attempt=1, max_attempts=1, on_lost="retry", created=1_000_000, finished=6_000_000, result=RESULT,
        error_kind=None, digest=b"row",
    )  # fmt: skip
    return Evidence(
        specs={"a": JobSpec("a", "on_process", {"n": 1}, value=4)},
        ops=[
            op("submit", 0.9, 1.0, "info"),
            op("submit", 1.1, 1.2, status=200, replayed=True, state="queued", revision=1),
            op("status", 2.0, 2.1, status=200, state="running", revision=2, epoch=1),
            op("events", 2.2, 3.0, status=200, after=0, ranges=((1, 2),), said=((2, "runs"),)),
            op("events", 4.1, 6.1, status=200, after=2, ranges=((3, 5),), ended=True, state="succeeded",
               said=((3, "queued"), (4, "runs again"), (5, "done"))),
            op("status", 6.2, 6.3, status=200, state="succeeded", revision=5, epoch=2, result=RESULT),
            op("result", 6.4, 6.5, status=200, state="succeeded", result=RESULT),
        ],
        effects=[
            effect("start", 1, 2.0),
            effect("effect", 1, 2.9),
            effect("start", 2, 4.5),
            effect("end", 2, 5.9, "returned"),
        ],
        rows=[row],
        again=[deepcopy(row)],
        attempts={
            "job-a": [
                AttemptRow(1, 1, "lost", 2_000_000, 3_500_000, "lost"),
                AttemptRow(2, 1, "succeeded", 4_500_000, 6_000_000, None),
            ]
        },
        states={
            "job-a": [
                StateEvent(2, "running", 1, 2),
                StateEvent(3, "queued", 1, 3),
                StateEvent(4, "running", 2, 4),
                StateEvent(5, "succeeded", 2, 5),
            ]
        },
        said={"job-a": {2: "runs", 3: "queued", 4: "runs again", 5: "done"}},
        lives=[
            Life("life.0.", 0, 0, ready=1, ended=3 * S, how="killed", status=-9, ready_wall=1, orphans_gone_s=0.1),
            Life(
                "life.1.", int(3.2 * S), 3_200_000, ready=4 * S, ended=8 * S, how="terminated", status=0,
                asked=7 * S, asked_wall=7_000_000, ready_wall=4_000_000, orphans_gone_s=0.0,
            ),
        ],
        deeds=[Deed("kill_daemon", 3 * S, 4 * S, True)],
        hygiene=Hygiene(integrity=["ok"], descriptors_ready=30, descriptors_quiet=31),
    )  # fmt: skip


def found(evidence: Evidence, check_id: str) -> Finding:
    """The word of one check on fresh caches."""
    return next(each for each in check(evidence) if each.id == check_id)


def test_good_history_is_green() -> None:
    """A job that was interrupted, run again and read by a client breaks nothing; what happened is counted."""
    findings = check(good())
    assert [(each.id, each.examples) for each in findings if not each.green] == []
    counts = {each.id: each.counts for each in findings}
    assert counts["C1"]["acknowledged"] == 1
    assert (counts["C4"]["unclear_keys"], counts["C4"]["had_been_stored"]) == (1, 1)
    assert counts["C9"]["ran_twice_or_more"] == 1
    assert counts["C12"]["daemon_kills"] == 1
    assert counts["C12"]["ready_s_max"] == 1.0
    assert (counts["C12"]["interrupted"], counts["C12"]["started_again_s_max"]) == (1, 1.5)
    assert counts["C13"]["subscriptions"] == 2


def _set(path: str, value: Any) -> Callable[[Evidence], None]:
    """Change one field: `rows.0.state`."""

    def change(evidence: Evidence) -> None:
        *way, last = path.split(".")
        at: Any = evidence
        for step in way:
            at = at[int(step)] if step.isdigit() else at[step] if isinstance(at, dict) else getattr(at, step)
        if isinstance(at, dict):
            at[last] = value
        else:
            setattr(at, last, value)

    return change


def _add(path: str, value: Any) -> Callable[[Evidence], None]:
    """Append to a list."""

    def change(evidence: Evidence) -> None:
        at: Any = evidence
        for step in path.split("."):
            at = at[step] if isinstance(at, dict) else getattr(at, step)
        at.append(value)

    return change


def _no_job(evidence: Evidence) -> None:
    evidence.rows.clear()
    evidence.again.clear()


def _never_ended(evidence: Evidence) -> None:
    for row in (*evidence.rows, *evidence.again):
        row.state, row.result, row.finished = "running", None, None


def _twice(evidence: Evidence) -> None:
    second = deepcopy(evidence.rows[0])
    second.id = "job-b"
    evidence.rows.append(second)
    evidence.again.append(second)


def _no_end(evidence: Evidence) -> None:
    evidence.effects.pop()


def _never_definite(evidence: Evidence) -> None:
    evidence.ops[1].outcome = "info"


def _cancelled_and_goes_on(evidence: Evidence) -> None:
    evidence.ops.append(op("status", 2.2, 2.3, status=200, state="cancelled", revision=3, epoch=1))


def _slow_cancel(evidence: Evidence) -> None:
    evidence.ops.append(op("cancel", 4.2, 4.3, status=202, state="stopping", revision=4, epoch=2))
    evidence.rows[0].finished = 40_000_000


def _lost_in_a_drain(evidence: Evidence) -> None:
    evidence.lives.append(Life("life.2.", 9 * S, 9_000_000, ready=10 * S, ready_wall=10_000_000))
    evidence.attempts["job-a"].append(AttemptRow(3, 1, "lost", 6_500_000, 7_500_000, "lost"))


def _only_once(evidence: Evidence) -> None:
    evidence.rows[0].on_lost = "fail"


def _open_end(evidence: Evidence) -> None:
    evidence.ops[5].seen.state = "running"


def _told_to_be_gone(evidence: Evidence) -> None:
    evidence.ops[4].seen.ranges, evidence.ops[4].seen.gaps = ((4, 5),), ((3, 3),)


def _upload_in_part(evidence: Evidence) -> None:
    evidence.specs = {
        mark: JobSpec(mark, "on_process", {}, upload="atomic", batch="b", value=4) for mark in ("a", "c")
    }
    evidence.ops.append(op("batch", 1.0, 1.1, job="", status=200, count=1))
    evidence.ops[-1].key = "b"


def _rerun_that_nobody_asked_for(evidence: Evidence) -> None:
    second = deepcopy(evidence.rows[0])
    second.id, second.rerun_of = "job-b", "job-a"
    evidence.rows.append(second)


def _rerun_that_is_gone(evidence: Evidence) -> None:
    evidence.ops.append(op("retry", 7, 7.1, job="job-b", status=201, state="queued", revision=1))


def _failed_by(kind: str, *allowed: str) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.specs["a"] = JobSpec("a", "crash", {}, ends=("failed",), errors=allowed)
        evidence.rows[0].state, evidence.rows[0].error_kind = "failed", kind

    return change


def _refused_submits(evidence: Evidence) -> None:
    """While everything else goes well."""
    evidence.lives[1].asked = evidence.lives[1].ended = 40 * S
    evidence.ops += [op("list", at, at + 0.1, job="") for at in range(5, 40)]
    evidence.ops += [
        op("submit", 5, 5.1, "fail", status=503, job=""),
        op("submit", 30, 30.1, status=201, job="job-c"),
    ]
    for each in evidence.ops[-2:]:
        each.key = "c"


def _integer_state(evidence: Evidence) -> None:
    evidence.states["job-a"][1] = StateEvent(3, "succeeded", 1, 3)


BAD: list[tuple[str, str, Callable[[Evidence], None]]] = [
    ("C1", "acknowledged and gone", _no_job),
    ("C1", "never ended", _never_ended),
    ("C2", "asked for by nobody", _set("rows.0.mark", "z")),
    ("C3", "two jobs for a key", _twice),
    ("C3", "two ids told", _add("ops", op("submit", 2, 2.1, job="job-c", status=200))),
    ("C1", "a rerun that was acknowledged and is gone", _rerun_that_is_gone),
    ("C2", "a rerun that nobody asked for", _rerun_that_nobody_asked_for),
    ("C4", "never definite", _never_definite),
    ("C4", "a part of an atomic upload", _upload_in_part),
    ("C5", "a crash by another name", _failed_by("task_error", "crashed")),
    ("C5", "an accepted change is gone", _add("ops", op("patch", 1.3, 1.4, status=200))),
    ("C5", "two rows", lambda e: e.rows.append(deepcopy(e.rows[0]))),
    ("C5", "readings of the listing differ", _set("again.0.digest", b"other")),
    ("C5", "not the expected value", _set("rows.0.result", RESULT.replace("4", "5"))),
    ("C5", "another attempt's result", _set("rows.0.result", RESULT.replace('"epoch":2', '"epoch":1'))),
    ("C5", "not an end it may have", _set("rows.0.state", "expired")),
    ("C5", "read otherwise before", _set("ops.6.seen.result", RESULT.replace("4", "5"))),
    ("C5", "read as failed before", _set("ops.5.seen.state", "failed")),
    ("C6", "a way that is not in the table", _integer_state),
    (
        "C6",
        "a reading that goes back",
        _add("ops", op("status", 7, 7.1, state="running", revision=4, epoch=2)),
    ),
    (
        "C6",
        "a final state that was left",
        _add("ops", op("status", 7, 7.1, state="queued", revision=6, epoch=2)),
    ),
    ("C6", "events and job disagree", _set("rows.0.state", "failed")),
    ("C7", "one epoch twice", _add("effects", effect("start", 2, 5.0, pid=77))),
    ("C7", "succeeded without an end", _no_end),
    ("C7", "a start after the end", _add("effects", effect("start", 3, 6.4))),
    ("C8", "two at once", _add("effects", effect("effect", 1, 4.6))),
    ("C9", "a start without a row", _add("effects", effect("start", 3, 5.0))),
    ("C9", "on_lost=fail twice", _only_once),
    ("C9", "more tries than allowed", _set("rows.0.attempt", 2)),
    ("C9", "a lost attempt that counts as a try", _set("attempts.job-a.1.attempt", 2)),
    ("C9", "a try that was never made", _set("attempts.job-a.0.attempt", 2)),
    (
        "C9",
        "a row that never ran succeeded",
        _add("attempts.job-a", AttemptRow(3, 1, "succeeded", None, None, None)),
    ),
    ("C10", "ran on when cancelled", _cancelled_and_goes_on),
    ("C10", "an accepted cancel that takes long", _slow_cancel),
    ("C11", "an attempt lost in a drain", _lost_in_a_drain),
    ("C11", "a stop with another status", _set("lives.1.status", 1)),
    ("C11", "a stop that hangs", _set("lives.1.how", "killed")),
    ("C11", "a stop that takes long", _set("lives.1.ended", 60 * S)),
    ("C12", "never ready again", _set("lives.1.ready", None)),
    ("C12", "ready very late", _set("lives.1.ready", 90 * S)),
    (
        "C12",
        "an attempt of an earlier life still running",
        _add("ops", op("status", 4.1, 4.2, state="running", revision=2, epoch=1)),
    ),
    ("C13", "a number that said something else", _set("ops.3.seen.said", ((2, "another"),))),
    ("C13", "an event that is gone", _set("said.job-a", {2: "runs", 3: "queued", 5: "done"})),
    ("C13", "numbers that nobody had", _told_to_be_gone),
    ("C13", "an end before the last event", _set("ops.4.seen.ranges", ((3, 4),))),
    ("C13", "an end by another state", _set("ops.4.seen.state", "failed")),
    ("C13", "a hole", _set("ops.4.seen.ranges", ((3, 3), (5, 5)))),
    ("C13", "a hole over the resume", _set("ops.4.seen.ranges", ((4, 5),))),
    ("C13", "an end that cannot be read", _open_end),
    ("C15", "a process outlived its daemon", _set("lives.0.orphans", ["77: sleep 600"])),
    ("C15", "a process at the end", _set("hygiene.left_processes", ["77: sleep 600"])),
    ("C15", "a zombie", _set("hygiene.zombies", ["77"])),
    ("C15", "a strange file", _set("hygiene.strange_files", ["x.tmp"])),
    ("C15", "a secret that is found", _set("hygiene.secrets_found", ["jobsvc.db"])),
    ("C15", "a temporary file", _set("hygiene.left_files", ["tmp1"])),
    ("C15", "a traceback", _set("hygiene.log_troubles", ["Traceback (most recent call last):"])),
    ("C15", "a damaged database", _set("hygiene.integrity", ["row 7 missing from index jobs_ready"])),
    ("C15", "an integrity check that was not made", _set("hygiene.integrity", [])),
    ("C15", "a log without bound", _set("hygiene.wal_bytes", 1 << 30)),
    ("C15", "descriptors that leak", _set("hygiene.descriptors_quiet", 300)),
    ("C16", "submits that are not taken", _refused_submits),
    ("C16", "a long silence", _add("ops", op("list", 30, 30.1, job=""))),
]


@pytest.mark.parametrize(("check_id", "what", "spoil"), BAD, ids=[f"{each[0]}: {each[1]}" for each in BAD])
def test_bad_history_is_red(check_id: str, what: str, spoil: Callable[[Evidence], None]) -> None:
    """The check that is there for it tells of it, with an example."""
    evidence = good()
    spoil(evidence)
    if what == "a long silence":
        evidence.lives[1].asked = evidence.lives[1].ended = 40 * S
    word = found(evidence, check_id)
    assert word.broken >= 1
    assert word.examples


def test_every_check_has_a_bad_history() -> None:
    """A check that was never seen red proves nothing."""
    assert {each(good()).id for each in CHECKS} == {check_id for check_id, _, _ in BAD}


def test_lost_in_a_drain_by_a_kill_before_it_is_no_fault_of_the_drain() -> None:
    """C11: a worker that was killed a moment before the stop is missed only in it."""
    evidence = good()
    _lost_in_a_drain(evidence)
    evidence.deeds.append(Deed("kill_worker", 6 * S, 6 * S, True, wall=6_500_000))
    assert found(evidence, "C11").green


def test_given_up_after_three_losses_is_as_promised() -> None:
    """C5: the third loss of a job while a daemon lived fails it; the daemon's own deaths do not count."""
    evidence = good()
    for row in (*evidence.rows, *evidence.again):
        row.state, row.error_kind, row.result = "failed", "lost", None
    del evidence.ops[4:]
    losses = [AttemptRow(epoch, 1, "lost", None, 5_000_000, "lost") for epoch in (2, 3)]
    evidence.attempts["job-a"][1:] = losses[:1]
    assert not found(evidence, "C5").green
    evidence.attempts["job-a"][1:] = losses
    assert found(evidence, "C5").green


def test_a_finding_keeps_the_first_examples_only() -> None:
    """A run with a hundred thousand broken jobs gives a report that can be read."""
    finding = Finding("C1", "all is well")
    for number in range(1_000):
        finding.breaks(number=number)
    assert (finding.broken, len(finding.examples)) == (1_000, EXAMPLES_MAX)
    assert finding.examples[0] == {"number": 0}


def test_percentiles_of_nothing_say_so() -> None:
    """No kill, no figure; otherwise the value below which that share lies."""
    assert percentiles([], "s") == {"s_p50": None, "s_p99": None, "s_max": None}
    assert percentiles([float(n) for n in range(1, 101)], "s") == {
        "s_p50": 51.0,
        "s_p99": 100.0,
        "s_max": 100.0,
    }
