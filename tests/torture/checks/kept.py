"""C1 to C4: what was accepted is there, once, and nothing else is."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.torture.checks.finding import Finding
from tests.torture.evidence import FINAL, Evidence


def lost(evidence: Evidence) -> Finding:
    """C1: every acknowledged submit is in the final listing, in a final state."""
    found = Finding("C1", "every acknowledged job is there and has come to its end")
    found.counts["acknowledged"] = 0
    seen: set[str] = set()
    for op in evidence.ops:
        if op.kind not in ("submit", "retry") or op.outcome != "ok" or op.job in seen:
            continue
        seen.add(op.job)
        found.count("acknowledged")
        row = evidence.by_id.get(op.job)
        if row is None:
            found.breaks(job=op.job, key=op.key, what="acknowledged and gone")
        elif row.state not in FINAL:
            found.breaks(job=op.job, key=op.key, what=f"never ended: {row.state} {row.reason}")
    return found


def unexpected(evidence: Evidence) -> Finding:
    """C2: every job that is there was asked for by a client."""
    found = Finding("C2", "every job was submitted by a client")
    invoked = {op.key for op in evidence.ops if op.kind == "submit"}
    found.counts["listed"] = len(evidence.rows)
    asked = Counter(op.key for op in evidence.ops if op.kind == "retry" and op.outcome != "fail")
    reruns = Counter(row.mark for row in evidence.rows if row.rerun_of is not None)
    found.counts["reruns"] = reruns.total()
    for row in evidence.rows:
        if row.mark not in invoked:
            found.breaks(job=row.id, mark=row.mark)
        if row.rerun_of is not None and row.rerun_of not in evidence.by_id:
            found.breaks(job=row.id, mark=row.mark, what=f"a rerun of {row.rerun_of}, which is not there")
    for mark, number in reruns.items():
        if number > asked[mark]:
            found.breaks(mark=mark, what=f"{number} reruns, {asked[mark]} were asked for")
    return found


def idempotency(evidence: Evidence) -> Finding:
    """C3: one job for a key, and every acknowledgement of the key names that job."""
    found = Finding("C3", "one job for each idempotency key")
    told: defaultdict[str, set[str]] = defaultdict(set)
    for op in evidence.ops:
        if op.kind == "submit" and op.outcome == "ok":
            told[op.key].add(op.job)
    stored: defaultdict[str, set[str]] = defaultdict(set)
    for row in evidence.rows:
        if row.rerun_of is None:
            stored[row.mark].add(row.id)
    found.counts["keys"] = len(told)
    for key in told.keys() | stored.keys():
        if len(told[key]) > 1 or len(stored[key]) > 1:
            found.breaks(key=key, told=sorted(told[key]), stored=sorted(stored[key]))
    return found


def recovered(evidence: Evidence) -> Finding:
    """C4: submits of which nobody knew whether they were stored. Reported; each must have become definite.

    Of an upload of which all or nothing is to be stored, never a part was there.
    """
    found = Finding("C4", "a submit without a clear reply becomes clear by its key")
    unclear: set[str] = set()
    definite: dict[str, bool] = {}
    for op in sorted((op for op in evidence.ops if op.kind == "submit"), key=lambda op: op.invoked):
        if op.outcome == "info":
            unclear.add(op.key)
            found.count("unclear_tries")
        elif op.outcome == "ok":
            definite.setdefault(op.key, op.seen.replayed)
    found.counts["unclear_keys"] = len(unclear)
    for key in unclear:
        if key not in definite:
            found.breaks(key=key, what="never became definite")
        else:
            found.count("had_been_stored" if definite[key] else "had_not_been_stored")
    sizes = Counter(spec.batch for spec in evidence.specs.values() if spec.upload == "atomic")
    for op in evidence.ops:
        if op.kind == "batch" and op.outcome == "ok":
            found.count("batches_read")
            if op.seen.count not in (0, sizes[op.key]):
                found.breaks(
                    batch=op.key, what=f"{op.seen.count} of {sizes[op.key]} jobs of an atomic upload"
                )
    return found
