"""Events: which are stored, which are derived from the row, and how a chunk becomes lines."""

from __future__ import annotations

import msgspec

from jobsvc.model.clock import time_text
from jobsvc.model.events import Chunk, derived, event_lines, merged, state_chunk, state_data
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, as_submitted, view

AT = 1_795_000_000_123_456


def job(**fields: object) -> Job:
    return Job(**{"no": 7, "id": bytes(16), "task": "t", "executor": "process", "created_at": AT, **fields})  # type: ignore[arg-type]


DONE = {
    "state": "succeeded", "epoch": 1, "attempt": 1, "claimed_at": AT, "claim_seq": 2, "finished_at": AT + 5, "seq": 6,
    "revision": 4, "result": b"1", "owner": "w", "started_at": AT + 1,
}  # fmt: skip


def test_the_first_claim_and_the_outcome_are_derived() -> None:
    claim, outcome = derived(job(**DONE))
    assert (claim.seq, claim.at, claim.kind, claim.body) == (
        2,
        AT,
        "state",
        state_data("running", None, 1, 1, 2),
    )
    assert (outcome.seq, outcome.at, outcome.body) == (6, AT + 5, state_data("succeeded", None, 1, 1, 4))


def test_a_job_that_has_not_been_claimed_has_none() -> None:
    assert derived(job()) == []
    assert [
        chunk.seq for chunk in derived(job(state="running", epoch=1, claim_seq=3, claimed_at=AT, seq=9))
    ] == [3]
    assert [chunk.seq for chunk in derived(job(state="cancelled", finished_at=AT, seq=2))] == [2]


def test_stored_and_derived_events_are_merged_in_order() -> None:
    items = Chunk(no=7, seq=3, count=3, kind="item", epoch=1, at=AT, body=b"1\n2\n3", stream="out", n=1)
    assert [chunk.seq for chunk in merged(job(**DONE), [items], 1, 6)] == [2, 3, 6]
    assert [chunk.seq for chunk in merged(job(**DONE), [items], 2, 5)] == [3]


def test_a_chunk_becomes_one_line_for_each_event() -> None:
    chunk = Chunk(
        no=7, seq=3, count=3, kind="item", epoch=1, at=AT, body=b'"a"\n{"b":1}\nnull', stream="out", n=11
    )
    lines = list(event_lines(chunk))
    assert [(seq, kind) for seq, kind, _ in lines] == [(3, "item"), (4, "item"), (5, "item")]
    assert [msgspec.json.decode(line) for _, _, line in lines] == [
        {"seq": 3 + k, "at": time_text(AT), "kind": "item", "data": data, "stream": "out", "n": 11 + k}
        for k, data in enumerate(["a", {"b": 1}, None])
    ]
    assert [seq for seq, _, _ in event_lines(chunk, after=4)] == [5]
    assert chunk.last == 5


def test_other_events_have_no_stream() -> None:
    [(seq, kind, line)] = event_lines(state_chunk(job(**DONE), AT))
    assert (seq, kind) == (6, "state")
    assert msgspec.json.decode(line) == {
        "seq": 6, "at": time_text(AT), "kind": "state",
        "data": {"state": "succeeded", "reason": None, "attempt": 1, "epoch": 1, "revision": 4},
    }  # fmt: skip


def test_a_job_is_served_with_every_field() -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(view(job(**DONE), "power")))
    assert list(decoded) == [
        "id", "task", "args", "executor", "queue", "priority", "labels", "tenant", "state", "done", "reason",
        "revision", "epoch", "attempt", "max_attempts", "backoff", "on_lost", "created_at", "run_at", "expires_at",
        "started_at", "finished_at", "timeouts", "progress", "result", "error", "durability", "parent", "rerun_of",
        "request_id", "traceparent", "links",
    ]  # fmt: skip
    text = id_text(bytes(16))
    assert (decoded["done"], decoded["result"], decoded["error"]) == (True, 1, None)
    assert decoded["links"]["events"] == f"/v1/jobs/{text}/events"
    assert decoded["timeouts"] == {"run": None, "idle": None, "total": None}
    assert {"args", "result"}.isdisjoint(
        msgspec.json.decode(msgspec.json.encode(view(job(**DONE), "power", args=False, result=False)))
    )


def test_the_first_event_shows_the_job_as_it_was_accepted() -> None:
    first = as_submitted(job(**DONE, run_at=AT + 1, args=b"{}"))
    assert (first.state, first.reason, first.revision, first.epoch, first.attempt) == (
        "scheduled",
        "run_at",
        1,
        0,
        0,
    )
    assert (first.result, first.error, first.started_at, first.finished_at) == (None, None, None, None)
    assert first.args == b"{}"
    assert as_submitted(job(**DONE)).state == "queued"
    assert as_submitted(job(**DONE, run_at=AT - 1)).state == "queued"  # a time in the past is now
