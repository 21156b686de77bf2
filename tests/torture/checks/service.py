"""C11 to C13, C15, C16: what the daemon does as a service: drains, comes back, streams, cleans up, answers."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise

from tests.torture.checks.finding import Finding, percentiles
from tests.torture.evidence import FINAL, Evidence, runs_of
from tests.torture.records import Life, Op

DRAIN_EXIT_MAX_S = 40.0
"""The drain (30 s at most in a run) and ten seconds."""
WORKER_DEATH_US = 3_000_000
"""A worker that the nemesis killed may be missed only now: processes it left hold its pipes open for a second."""
READY_MAX_S = 20.0
"""From a kill to ready, on the slowest machine on which this is run."""
WAL_MAX_BYTES = 96 * 1024 * 1024
"""The log is cut back to 64 MiB; what one group may add on top."""
DESCRIPTORS_GROWN_MAX = 32
"""Connections that have not been closed yet, pipes of what starts just now."""
SILENCE_MAX_S = 10.0
"""No window in which the daemon was ready may pass longer than this without an operation that went well."""


def drains(evidence: Evidence) -> Finding:
    """C11: a stop by SIGTERM loses no attempt, takes bounded time and ends with status 0."""
    found = Finding("C11", "a stop by SIGTERM costs no attempt")
    windows: list[tuple[int, int]] = []
    killed = [deed for deed in evidence.deeds if deed.kind == "kill_worker"]
    followers: list[Life | None] = [*evidence.lives[1:], None]
    for life, following in zip(evidence.lives, followers, strict=False):
        if life.how != "terminated" or life.asked is None or life.ended is None:
            continue
        found.count("stops")
        took_s = (life.ended - life.asked) / 1e9
        if life.status != 0 or took_s > DRAIN_EXIT_MAX_S:
            found.breaks(life=life.name, what=f"ended with status {life.status} after {took_s:.1f} s")
        if following is not None and following.ready is not None:
            windows.append((life.asked_wall, following.ready_wall))
    for job, rows in evidence.attempts.items():
        for row in rows:
            if row.state == "drained":
                found.count("queued_again")
            if row.state != "lost" or row.finished is None or not _within(row.finished, windows):
                continue
            if not any(0 <= row.finished - deed.wall <= WORKER_DEATH_US for deed in killed):
                found.breaks(job=job, what=f"epoch {row.epoch} was lost in a stop by SIGTERM")
    return found


def _within(moment: int, windows: list[tuple[int, int]]) -> bool:
    place = bisect_right(windows, (moment, moment)) - 1
    return place >= 0 and windows[place][0] <= moment <= windows[place][1]


def recovery(evidence: Evidence) -> Finding:
    """C12: from a kill to ready, and to the next start of each job it interrupted. Every start must become ready."""
    found = Finding("C12", "a killed daemon is soon ready again, and so are the jobs it ran")
    ready: list[float] = []
    kills: list[int] = []
    ended: int | None = None
    for life in evidence.lives:
        if life.ready is None:
            if life.how != "crashed":
                found.breaks(life=life.name, what=f"did not become ready: {life.how} {life.status}")
        elif ended is not None:
            ready.append((life.ready - ended) / 1e9)
            if ready[-1] > READY_MAX_S:
                found.breaks(life=life.name, what=f"ready {ready[-1]:.1f} s after the kill")
        ended = life.ended if life.how in ("killed", "crashed") else None
        if ended is not None:
            kills.append(ended)
    found.counts["daemon_kills"] = sum(life.how in ("killed", "crashed") for life in evidence.lives)
    found.counts |= percentiles(ready, "ready_s")
    again = _started_again(evidence, kills)
    found.counts["interrupted"] = len(again)
    found.counts |= percentiles(again, "started_again_s")
    return found


def _started_again(evidence: Evidence, kills: list[int]) -> list[float]:
    """For each attempt that a kill of the daemon cut off: seconds from the kill to the next start of its job."""
    took: list[float] = []
    for effects in evidence.effects_of.values():
        for older, newer in pairwise(runs_of(effects)):
            if any(line.what == "end" for line in older):
                continue
            place = bisect_right(kills, newer[0].at) - 1
            if place >= 0 and older[0].at < kills[place]:
                took.append((newer[0].at - kills[place]) / 1e9)
    return took


def streams(evidence: Evidence) -> Finding:
    """C13: numbers without a hole, over resumes too; the end comes once, and only when it can be read."""
    found = Finding("C13", "event streams have no hole, and end once the outcome can be read")
    by_reader: defaultdict[tuple[int, str], list[Op]] = defaultdict(list)
    for op in evidence.ops:
        if op.outcome == "ok" and op.job and op.kind in ("events", "status"):
            by_reader[op.client, op.job].append(op)
    for (client, job), ops in by_reader.items():
        if any(op.kind == "events" for op in ops):
            _stream(client, job, sorted(ops, key=lambda op: op.invoked), found)
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


def hygiene(evidence: Evidence) -> Finding:
    """C15: nothing is left behind: processes, zombies, files, descriptors, log; and the database is whole."""
    found = Finding("C15", "nothing is left behind")
    seen = evidence.hygiene
    gone: list[float] = []
    for life in evidence.lives:
        if life.orphans_gone_s is not None:
            gone.append(life.orphans_gone_s)
        for words in life.orphans:
            found.breaks(life=life.name, what=f"outlived its daemon: {words}")
    found.counts |= percentiles(gone, "orphans_gone_s")
    found.counts["wal_bytes"] = seen.wal_bytes
    found.counts["descriptors_grown"] = seen.descriptors_quiet - seen.descriptors_ready
    for name, named in (
        ("zombie", seen.zombies),
        ("process", seen.left_processes),
        ("file", seen.strange_files),
        ("log", seen.log_troubles),
        ("integrity_check", [line for line in seen.integrity if line != "ok"]),
    ):
        for word in named:
            found.breaks(what=name, which=word)
    if not seen.integrity:
        found.breaks(what="integrity_check", which="was not made")
    if seen.wal_bytes > WAL_MAX_BYTES:
        found.breaks(what="the write-ahead log has grown", which=seen.wal_bytes)
    if seen.descriptors_quiet - seen.descriptors_ready > DESCRIPTORS_GROWN_MAX:
        found.breaks(what="descriptors", which=f"{seen.descriptors_ready}, then {seen.descriptors_quiet}")
    return found


def availability(evidence: Evidence) -> Finding:
    """C16: while a daemon is ready, operations go well; no long silence."""
    found = Finding("C16", "a daemon that is ready answers")
    moments = sorted(op.ended for op in evidence.ops if op.outcome == "ok")
    found.counts["ok"] = len(moments)
    found.counts["not_ok"] = len(evidence.ops) - len(moments)
    silences: list[float] = []
    ready_s = 0.0
    for life in evidence.lives:
        if life.ready is None or life.ended is None:
            continue
        end = min(life.ended, life.asked or life.ended, max(moments, default=life.ready))
        if end <= life.ready:
            continue
        ready_s += (end - life.ready) / 1e9
        inside = moments[bisect_right(moments, life.ready) : bisect_right(moments, end)]
        longest = max(later - earlier for earlier, later in pairwise([life.ready, *inside, end])) / 1e9
        silences.append(longest)
        if longest > SILENCE_MAX_S:
            found.breaks(life=life.name, what=f"no operation went well for {longest:.1f} s")
    found.counts["ok_per_ready_s"] = round(len(moments) / ready_s, 1) if ready_s else None
    found.counts |= percentiles(silences, "silence_s")
    return found
