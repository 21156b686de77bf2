"""C11, C12, C15: what the daemon does as a service: it drains, comes back, and leaves nothing behind."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from tests.torture.checks.finding import Finding, percentiles
from tests.torture.checks.times import Lives
from tests.torture.evidence import Evidence, runs_of
from tests.torture.records import Life

DRAIN_EXIT_MAX_S = 40.0
"""The drain (30 s at most in a run) and ten seconds."""
WORKER_DEATH_US = 3_000_000
"""A worker that the nemesis killed may be missed only now: processes it left hold its pipes open for a second."""
READY_MAX_S = 75.0
"""From a kill to ready: two seconds on a machine of its own, half a minute on one with ten other things to do."""
WAL_MAX_BYTES = 96 * 1024 * 1024
"""The log is cut back to 64 MiB; what one group may add on top."""
DESCRIPTORS_GROWN_MAX = 32
"""Connections that have not been closed yet, pipes of what starts just now."""


def drains(evidence: Evidence) -> Finding:
    """C11: a stop by SIGTERM loses no attempt, takes bounded time and ends with status 0."""
    found = Finding("C11", "a stop by SIGTERM costs no attempt")
    windows: list[tuple[int, int]] = []
    killed = [deed for deed in evidence.deeds if deed.kind == "kill_worker"]
    followers: list[Life | None] = [*evidence.lives[1:], None]
    for life, following in zip(evidence.lives, followers, strict=False):
        if life.asked is not None and life.how == "killed":
            found.breaks(life=life.name, what="did not end when it was told to, and had to be killed")
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
    _put_back(evidence, found)
    again = _started_again(evidence, kills)
    found.counts["interrupted"] = len(again)
    found.counts |= percentiles(again, "started_again_s")
    return found


def _put_back(evidence: Evidence, found: Finding) -> None:
    """Once a daemon is ready, nobody sees an attempt of an earlier life as running: it has been put back before."""
    lives = Lives(evidence)
    began: dict[tuple[str, int], int] = {}
    for line in evidence.effects:
        if line.job is not None and line.epoch is not None and line.what == "start":
            began[line.job, line.epoch] = lives.place_of.get(line.life, -1)
    for op in evidence.ops:
        if op.outcome == "ok" and op.seen.state in ("running", "stopping"):
            place = began.get((op.job, op.seen.epoch), -1)
            if -1 < place < lives.at(op.invoked):
                what = f"epoch {op.seen.epoch} is {op.seen.state}, and began in an earlier life of the daemon"
                found.breaks(job=op.job, what=what, client=op.client, at=op.ended)


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
        ("a secret in", seen.secrets_found),
        ("temporary file", seen.left_files),
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
