"""C16: whether the daemon answers while it is there."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise

from tests.torture.checks.finding import Finding, percentiles
from tests.torture.checks.times import away_s
from tests.torture.evidence import Evidence

SILENCE_MAX_S = 10.0
"""No window in which the daemon was ready may pass longer than this without an operation that went well."""


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
    _submits(evidence, found)
    _by_deed(evidence, moments, found)
    found.counts["ok_per_ready_s"] = round(len(moments) / ready_s, 1) if ready_s else None
    found.counts |= percentiles(silences, "silence_s")
    return found


def _submits(evidence: Evidence, found: Finding) -> None:
    """From the first try of a submit to its acknowledgement, time without a daemon left out: others may go well."""
    first: dict[str, int] = {}
    took: list[float] = []
    for op in sorted((op for op in evidence.ops if op.kind == "submit"), key=lambda op: op.invoked):
        began = first.setdefault(op.key, op.invoked)
        if op.outcome != "ok" or began < 0:
            continue
        first[op.key] = -1
        raw_s = (op.ended - began) / 1e9
        took.append(raw_s)
        if raw_s > SILENCE_MAX_S and (alone := raw_s - away_s(evidence, began, op.ended)) > SILENCE_MAX_S:
            found.breaks(key=op.key, what=f"a submit was not taken for {alone:.1f} s")
    found.counts |= percentiles(took, "submit_s")


def _by_deed(evidence: Evidence, ok: list[int], found: Finding) -> None:
    """Which share of the operations went well while the nemesis did what."""
    failed = sorted(op.ended for op in evidence.ops if op.outcome != "ok")
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for deed in evidence.deeds:
        for place, ends in enumerate((ok, failed)):
            sums[deed.kind][place] += bisect_right(ends, deed.until) - bisect_right(ends, deed.at)
    for kind, (well, badly) in sorted(sums.items()):
        found.counts[f"ok_in_{kind}"] = round(well / (well + badly), 3) if well + badly else None
