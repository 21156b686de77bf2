"""C13: what those who follow a job are told."""

from __future__ import annotations

from collections import defaultdict

from tests.torture.checks.finding import Finding
from tests.torture.evidence import FINAL, Evidence
from tests.torture.records import Op


def streams(evidence: Evidence) -> Finding:
    """C13: numbers without a hole, over resumes too; the end comes once, and only when it can be read."""
    found = Finding("C13", "event streams have no hole, and end once the outcome can be read")
    by_reader: defaultdict[tuple[int, str], list[Op]] = defaultdict(list)
    for op in evidence.ops:
        if op.outcome == "ok" and op.job and op.kind in ("events", "status"):
            by_reader[op.client, op.job].append(op)
    for (client, job), ops in by_reader.items():
        if any(op.kind == "events" for op in ops):
            ops.sort(key=lambda op: op.invoked)
            _stream(client, job, ops, found)
            for op in ops:
                _meant(evidence, op, found)
    return found


def _stream(client: int, job: str, ops: list[Op], found: Finding) -> None:
    ends = 0
    for place, op in enumerate(ops):
        if op.kind != "events":
            continue
        found.count("subscriptions")
        expected = op.seen.after + 1
        pieces = sorted([*op.seen.ranges, *op.seen.gaps])
        for first, last in pieces:
            if first != expected:
                found.breaks(
                    job=job,
                    client=client,
                    what=f"number {expected} was due, {first} came",
                    after=op.seen.after,
                )
            expected = last + 1
            found.count("events", last - first + 1)
        if not op.seen.ended:
            continue
        ends += 1
        later = next((each for each in ops[place + 1 :] if each.kind == "status"), None)
        if later is not None and later.seen.state not in FINAL:
            found.breaks(
                job=job, client=client, what=f"the stream ended, the job was still {later.seen.state}"
            )
    if ends > 1:
        found.breaks(job=job, client=client, what=f"{ends} ends")


def _meant(evidence: Evidence, op: Op, found: Finding) -> None:
    """What a number has said once it says for good; an end says what the job is, after the last event."""
    said = evidence.said.get(op.job)
    if said is not None:
        for number, digest in op.seen.said:
            found.count("compared")
            now = said.get(number)
            if now != digest:
                what = "is not there any more" if now is None else "says something else in the end"
                found.breaks(job=op.job, client=op.client, what=f"event {number} {what}", at=op.ended)
    for first, last in op.seen.gaps:
        # Only a job that says more than is kept may lose some of it, and of those none is followed.
        found.breaks(job=op.job, client=op.client, what=f"{first} to {last} are said to be gone", at=op.ended)
    row = evidence.by_id.get(op.job)
    if row is None or not op.seen.ended:
        return
    if op.seen.state != row.state:
        found.breaks(job=op.job, client=op.client, what=f"ended as {op.seen.state}, the job is {row.state}")
    last = max((last for _, last in (*op.seen.ranges, *op.seen.gaps)), default=op.seen.after)
    due = max((event.seq for event in evidence.states.get(op.job, ())), default=0)
    if last < due:
        found.breaks(job=op.job, client=op.client, what=f"ended after event {last}, the last one is {due}")
