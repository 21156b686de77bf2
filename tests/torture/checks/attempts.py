"""C7 to C10: what the jobs said of themselves, against what is recorded of them."""

from __future__ import annotations

from itertools import pairwise

from tests.torture.checks.finding import Finding
from tests.torture.checks.times import away_s
from tests.torture.evidence import FINAL, AttemptRow, Evidence, Row, runs_of
from tests.torture.records import Effect, Op

WALL_SLACK_US = 1_000_000
"""Between the moment an outcome is stamped and its commit: only a start later than that is certain to be wrong."""
NEVER_RAN = frozenset(("lost", "cancelled", "drained", "failed"))
"""What an attempt may be called of which no line of its own exists."""
ENDED_BY_CODE = frozenset(("task_error", "not_serialisable", "too_large"))
"""Kinds of failure that only code which ran can have."""
CANCEL_MAX_S = 15.0
"""From the 202 of a cancel to the end, time in which no daemon was ready left out."""


def epochs(evidence: Evidence) -> Finding:
    """C7: attempts start in the order of their epochs, the recorded one among them, none after the end."""
    found = Finding("C7", "epochs grow with the starts; no attempt starts after a final state")
    for job, effects in evidence.effects_of.items():
        row = evidence.by_id.get(job)
        starts = [line for line in effects if line.what == "start"]
        found.count("starts", len(starts))
        known = [line.epoch for line in starts if line.epoch is not None]
        if known != sorted(set(known)):
            found.breaks(job=job, what=f"epochs of its starts: {known}")
        if row is None or row.state not in FINAL:
            continue
        if row.state == "succeeded":
            _ran(job, row, effects, found)
        final_seen = min((op.ended for op in evidence.ops_of.get(job, ()) if _shows_end(op)), default=None)
        for line in starts:
            late = final_seen is not None and line.at > final_seen
            if late or (row.finished is not None and line.wall > row.finished + WALL_SLACK_US):
                found.breaks(
                    job=job, what=f"epoch {line.epoch} started after the job was {row.state}", pid=line.pid
                )
    return found


def _ran(job: str, row: Row, effects: list[Effect], found: Finding) -> None:
    """The attempt that succeeded must have started and returned."""
    recorded = [line for line in effects if line.epoch in (row.epoch, None)]
    said = {line.what for line in recorded if line.what != "end" or line.outcome == "returned"}
    if not {"start", "end"} <= said:
        found.breaks(
            job=job, what=f"epoch {row.epoch} is recorded as succeeded, but said only {sorted(said)}"
        )


def _shows_end(op: Op) -> bool:
    return op.outcome == "ok" and op.seen.state in FINAL


def overlap(evidence: Evidence) -> Finding:
    """C8: an attempt says nothing more once the next one has started."""
    found = Finding("C8", "attempts of one job never overlap")
    found.counts["pairs"] = 0
    for job, effects in evidence.effects_of.items():
        runs = runs_of(effects)
        for older, newer in pairwise(runs):
            found.count("pairs")
            if older[-1].at > newer[0].at:
                by_ms = round((older[-1].at - newer[0].at) / 1e6, 1)
                found.breaks(
                    job=job, what=f"epoch {older[0].epoch} and {newer[0].epoch} together for {by_ms} ms"
                )
    return found


def attempts(evidence: Evidence) -> Finding:
    """C9: every start has its row; rows without a start are of attempts that were lost early; no start too many."""
    found = Finding("C9", "recorded attempts are those that ran; no job runs more often than it may")
    found.counts["ran_twice_or_more"] = 0
    for row in evidence.rows:
        rows = {attempt.epoch: attempt for attempt in evidence.attempts.get(row.id, ())}
        starts = [line for line in evidence.effects_of.get(row.id, ()) if line.what == "start"]
        found.count("attempts", len(rows))
        if len(starts) > 1:
            found.count("ran_twice_or_more")
        for line in starts:
            if line.epoch is not None and line.epoch not in rows:
                found.breaks(job=row.id, what=f"epoch {line.epoch} started and has no row", rows=sorted(rows))
        if len(starts) > len(rows):
            found.breaks(job=row.id, what=f"{len(starts)} starts, {len(rows)} rows")
        if row.on_lost == "fail" and row.max_attempts == 1 and len(starts) > 1:
            found.breaks(job=row.id, what=f"on_lost=fail, and it was started {len(starts)} times")
        if row.attempt > row.max_attempts:
            found.breaks(job=row.id, what=f"attempt {row.attempt} of {row.max_attempts}")
        _numbered(row, list(rows.values()), found)
        told = {line.epoch for line in starts}
        if None in told:
            continue  # a program does not know its epoch
        for epoch, attempt in rows.items():
            if epoch in told:
                continue
            found.count("rows_without_start")
            if attempt.state not in NEVER_RAN or attempt.error_kind in ENDED_BY_CODE:
                found.breaks(job=row.id, what=f"epoch {epoch} is {attempt.state}, and never started")
    return found


def _numbered(row: Row, attempts: list[AttemptRow], found: Finding) -> None:
    """Only an attempt that failed by itself counts as a try: none that was lost, drained, or handed back unbegun."""
    number = 1
    for attempt in sorted(attempts, key=lambda each: each.epoch):
        if attempt.attempt != number:
            what = f"epoch {attempt.epoch} is called try {attempt.attempt}, and is the {number}."
            found.breaks(job=row.id, what=what)
            return
        number += attempt.state == "failed"


def cancels(evidence: Evidence) -> Finding:
    """C10: once a job is seen cancelled its code is still; once a cancel is accepted the end comes soon."""
    found = Finding("C10", "cancelled means stopped, and a cancel that is accepted leads to an end")
    for job, ops in evidence.ops_of.items():
        row = evidence.by_id.get(job)
        seen = min(
            (op.ended for op in ops if op.outcome == "ok" and op.seen.state == "cancelled"), default=None
        )
        if seen is not None:
            found.count("seen_cancelled")
            late = [line for line in evidence.effects_of.get(job, ()) if line.at > seen]
            if late:
                by_ms = round((late[-1].at - seen) / 1e6, 1)
                found.breaks(job=job, what=f"cancelled, and its code ran on for {by_ms} ms")
        if row is not None and row.state == "cancelled" and row.finished is not None:
            late = [
                line for line in evidence.effects_of.get(job, ()) if line.wall > row.finished + WALL_SLACK_US
            ]
            if late:
                found.breaks(job=job, what="cancelled, and its code ran on", lines=len(late))
        for op in ops:
            if op.kind == "cancel" and op.seen.status == 202 and row is not None and row.finished is not None:
                found.count("accepted")
                took_s = (row.finished - op.wall) / 1e6 - away_s(evidence, op.ended)
                if took_s > CANCEL_MAX_S:
                    found.breaks(job=job, what=f"ended {took_s:.1f} s after the cancel was accepted")
    return found
