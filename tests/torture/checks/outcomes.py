"""C5 and C6: one outcome, which never changes; and states that move along the table only."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any, cast

from jobsvc.model.limits import LOSSES_MAX
from jobsvc.model.states import STATES, State, allowed
from tests.torture.checks.finding import Finding
from tests.torture.evidence import FINAL, Evidence, Row
from tests.torture.kinds import JobSpec
from tests.torture.records import Op


def single_result(evidence: Evidence) -> Finding:
    """C5: one outcome a job: the expected one, of the attempt that is recorded, the same whenever it was read."""
    found = Finding("C5", "one outcome for each job, the expected one, and it never changes")
    rows = Counter(row.id for row in evidence.rows)
    again = {row.id: row for row in evidence.again}
    for row in evidence.rows:
        if rows[row.id] > 1:
            found.breaks(job=row.id, what=f"listed {rows[row.id]} times")
        second = again.get(row.id)
        if second is None or second.digest != row.digest:
            found.breaks(job=row.id, what="two readings of the quiet listing differ")
        if row.state not in FINAL:
            continue
        found.count(row.state)
        spec = evidence.specs.get(row.mark)
        if _given_up(evidence, row):
            found.count("given_up_after_three_losses")
        elif spec is not None and (wrong := _wrong(row, spec)):
            found.breaks(job=row.id, mark=row.mark, what=wrong, state=row.state, error=row.error_kind)
        for op in evidence.ops_of.get(row.id, ()):
            if op.kind == "patch" and op.outcome == "ok":
                found.count("moved")
                if not row.moved:
                    found.breaks(job=row.id, what="an accepted change is gone", client=op.client, at=op.ended)
            if wrong := _changed(op, row):
                found.breaks(job=row.id, what=wrong, client=op.client, at=op.ended)
    return found


def _given_up(evidence: Evidence, row: Row) -> bool:
    """Whether it failed because its workers were killed three times while a daemon lived, as the promise says."""
    if row.error_kind != "lost" or row.on_lost == "fail":
        return False
    losses = 1  # the last
    for attempt in evidence.attempts.get(row.id, ()):
        if attempt.state == "lost" and attempt.finished is not None:
            # What a daemon's death has cost is written down by the next one while it starts: that does not count.
            at = attempt.finished
            losses += not any(life.launched_wall <= at <= life.ready_wall for life in evidence.lives)
    return losses >= LOSSES_MAX


def _wrong(row: Row, spec: JobSpec) -> str:
    """What is wrong with an outcome, by what the job was to do."""
    if row.state not in spec.ends:
        return f"ended {row.state}, could only end {' or '.join(spec.ends)}"
    if row.state == "failed" and spec.errors and row.error_kind not in spec.errors:
        return f"failed by {row.error_kind}, could only by {' or '.join(spec.errors)}"
    if row.state != "succeeded" or spec.value is None:
        return ""
    result: Any = json.loads(row.result or "null")
    if not isinstance(result, dict) or result.get("mark") != spec.mark or result.get("value") != spec.value:
        return f"its result is not its own: {row.result}"
    if result.get("epoch") != row.epoch:
        return f"the result of attempt {result.get('epoch')} is recorded as that of {row.epoch}"
    return ""


def _changed(op: Op, row: Row) -> str:
    """How an earlier reading of a final job differs from the last one."""
    seen = op.seen
    if op.outcome != "ok" or seen.state not in FINAL:
        return ""
    if seen.state != row.state:
        return f"was read as {seen.state} before"
    if op.kind == "result" and seen.result is not None and seen.result != row.result:
        return f"its result was read as {seen.result[:200]} before"
    if op.kind in ("status", "submit") and seen.result is not None:
        if json.loads(seen.result) != json.loads(row.result or "null"):
            return f"its result was read as {seen.result[:200]} before"
        if seen.revision != row.revision:
            return f"its revision was {seen.revision} before"
    return ""


def legal_path(evidence: Evidence) -> Finding:
    """C6: states move along the table: in the job's own events step by step, in what clients read as far as seen."""
    found = Finding("C6", "states move along the table, and no final state is left")
    for job, events in evidence.states.items():
        state: State | None = None
        seq = 0
        for event in events:
            found.count("events")
            if event.seq <= seq:
                found.breaks(job=job, what=f"event {event.seq} comes after {seq}")
            if state is not None and not allowed(state, event.state):
                found.breaks(job=job, what=f"{state} → {event.state}", seq=event.seq)
            state, seq = event.state, event.seq
        row = evidence.by_id.get(job)
        if row is not None and state is not None and state != row.state:
            found.breaks(job=job, what=f"the last event says {state}, the job {row.state}")
    for job, ops in evidence.ops_of.items():
        _readings(job, ops, found)
    return found


def _readings(job: str, ops: list[Op], found: Finding) -> None:
    """Readings that do not overlap: a later one must show a state that can be reached from the earlier one."""
    by_end = [op for op in ops if op.outcome == "ok" and op.seen.state and op.seen.revision]
    newest: Op | None = None
    ended = 0
    for op in sorted(by_end, key=lambda op: op.invoked):
        while ended < len(by_end) and by_end[ended].ended < op.invoked:
            if newest is None or by_end[ended].seen.revision >= newest.seen.revision:
                newest = by_end[ended]
            ended += 1
        if newest is None:
            continue
        found.count("readings")
        before, now = newest.seen, op.seen
        if now.revision < before.revision or now.epoch < before.epoch:
            what = f"revision {before.revision} epoch {before.epoch}, later {now.revision} and {now.epoch}"
            found.breaks(job=job, what=what, at=op.ended)
        elif now.state != before.state and now.state not in reachable(cast("State", before.state)):
            found.breaks(job=job, what=f"{before.state}, later {now.state}", at=op.ended)


@cache
def reachable(state: State) -> frozenset[State]:
    """The states that a job in this one may come to, by any number of steps."""
    found: set[State] = set()
    fresh: set[State] = {state}
    while fresh:
        step = {to for to in STATES if any(allowed(frm, to) for frm in fresh)}
        fresh = step - found
        found |= step
    return frozenset(found)
