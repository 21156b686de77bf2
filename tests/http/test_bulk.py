"""Bulk submit: committed while it arrives, answered in order, slowed by the store alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, succeed

from jobsvc.engine import waits
from jobsvc.http import bulk_jobs, bulk_reply, limits
from jobsvc.http.refusals import DISTINCT_MAX, Refusals
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import parse_id
from tests.http.house import House
from tests.http.wire import TOKEN, Wire, chunked

LINE = b'{"task":"echo","args":{"x":%d}}\n'
HEAD = (
    f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/x-ndjson\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
)


def begin(house: House, query: str = "") -> Wire:
    """The head of an upload in chunks."""
    wire = house.wire()
    wire.send(f"POST /v1/jobs/bulk{query} HTTP/1.1\r\n{HEAD}".encode())
    return wire


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stored(house: House) -> int:
    return len(house.ask("GET", "/v1/jobs?limit=1000").json()["jobs"])


def test_each_line_is_answered_in_order(house: House) -> None:
    """Ids and problems by line number; blank lines are counted and skipped; the last needs no newline."""
    body = (
        LINE % 1
        + b"\n"
        + b'{"task":"nope"}\n'
        + b"{\n"
        + LINE % 2
        + b'   \n{"task":"add","args":{"n":"x"}}\n'
        + (LINE % 3).strip()
    )
    reply = house.ask("POST", "/v1/jobs/bulk", raw=body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    lines = reply.lines()
    assert [line["line"] for line in lines] == [1, 3, 4, 5, 7, 8]
    assert ["id" in line for line in lines] == [True, False, False, True, False, True]
    assert [line["problem"]["code"] for line in lines if "problem" in line] == [
        "no_such_task",
        "bad_json",
        "invalid_args",
    ]
    assert lines[4]["problem"]["errors"][0]["pointer"] == "/args/n"
    job = house.ask("GET", f"/v1/jobs/{lines[3]['id']}").json()
    assert job["args"] == {"x": 2}
    assert stored(house) == 3


def test_full_gives_the_jobs_beside_their_ids(house: House) -> None:
    """`?full=1`: what a single submit would have answered; refused lines have their problem; replays as they stand."""
    keyed = b'{"task":"echo","args":{"x":1},"key":"k"}\n'
    body = keyed + b'{"task":"nope"}\n' + keyed + b'{"task":"idle","priority":7}\n'
    first, refused, again, last = house.ask("POST", "/v1/jobs/bulk?full=1", raw=body).lines()
    assert refused["problem"]["code"] == "no_such_task"
    assert (first["line"], again["line"], last["line"]) == (1, 3, 4)
    assert first["id"] == again["id"] == first["job"]["id"] == again["job"]["id"]
    assert last["job"] == house.ask("GET", f"/v1/jobs/{last['id']}").json()
    assert (last["job"]["priority"], last["job"]["state"]) == (7, "queued")


def test_full_says_null_of_a_job_that_is_gone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted between its commit and the reply: the id alone is left."""
    monkeypatch.setattr(house.engine, "get_many", lambda *_: succeed({}))
    [line] = house.ask("POST", "/v1/jobs/bulk?full=1", raw=LINE % 1).lines()
    assert (line["line"], line["job"]) == (1, None)


def test_an_empty_upload_is_answered_with_nothing(house: House) -> None:
    """No line, no id."""
    assert house.ask("POST", "/v1/jobs/bulk").body == b""
    assert house.ask("POST", "/v1/jobs/bulk", raw=b"\n\n").body == b""
    lines = house.ask(
        "POST", "/v1/jobs/bulk", raw=b"\n" * 2_500 + LINE % 1 + b"\n" * 2_500 + LINE % 2
    ).lines()
    assert [line["line"] for line in lines] == [2_501, 5_002]
    assert house.site.budget.used == 0


def test_lines_are_committed_while_the_body_arrives(house: House) -> None:
    """Cut anywhere; nothing is answered before the end."""
    wire = begin(house)
    text = LINE % 1 + LINE % 2 + LINE % 3
    for at in range(0, len(text), 7):
        wire.send(piece(text[at : at + 7]))
    assert len(house.worker.started) == 3
    assert wire.sent == b""
    wire.send(b"0\r\n\r\n")
    assert [line["line"] for line in wire.reply().lines()] == [1, 2, 3]


def test_live_answers_at_once(house: House) -> None:
    """`?live=1`: ids come while the body is still being sent."""
    wire = begin(house, "?live=1")
    wire.send(piece(LINE % 1))
    [reply] = wire.replies()
    assert ([line["line"] for line in reply.lines()], reply.whole) == ([1], False)
    wire.send(piece(LINE % 2) + b"0\r\n\r\n")
    assert [line["line"] for line in wire.reply().lines()] == [1, 2]


def test_a_client_that_leaves_has_submitted_what_it_sent(house: House) -> None:
    """Whole lines count, half of one does not."""
    wire = begin(house)
    wire.send(piece(LINE % 1 + LINE % 2 + b'{"task":'))
    wire.leave()
    assert stored(house) == 2


def test_the_store_slows_the_upload_and_the_reply_does_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many uncommitted lines pause the transport; a commit resumes it; a slow reader changes nothing."""
    monkeypatch.setattr("jobsvc.http.bulk.BULK_UNCOMMITTED_LINES", 10)
    held: list[Deferred[None]] = []
    submit = house.store.submit

    def slow(jobs: Any) -> Any:
        gate: Deferred[None] = Deferred()
        held.append(gate)
        return gate.addCallback(lambda _: submit(jobs))

    house.store.submit = slow
    wire = begin(house, "?live=1")
    wire.channel.pauseProducing()
    assert wire.transport.producerState == "producing"
    for n in range(10):
        wire.send(piece(LINE % n))
    assert wire.transport.producerState == "paused"
    wire.send(piece(b"".join(LINE % n for n in range(10, 30))))
    assert len(held) == 10
    for gate in held[:6]:
        gate.callback(None)
    house.after(0)
    for gate in held[6:]:
        gate.callback(None)
    assert wire.transport.producerState == "producing"
    wire.send(b"0\r\n\r\n")
    wire.channel.resumeProducing()
    assert [line["line"] for line in wire.reply().lines()] == list(range(1, 31))


def test_decoding_goes_in_slices(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large piece does not hold the reactor: what the slice leaves is done in later turns, in order."""
    monkeypatch.setattr(house.clock, "seconds", iter_seconds(house))
    wire = begin(house)
    wire.send(piece(b"".join(LINE % n for n in range(200))))
    first = len(house.worker.started)
    assert 0 < first < 200
    turns = 0
    while len(house.worker.started) < 200 and turns < 300:
        house.clock.advance(0)
        turns += 1
    assert turns > 3
    house.worker.started.clear()
    wire.send(b"0\r\n\r\n")
    assert [line["line"] for line in wire.reply().lines()] == list(range(1, 201))


def iter_seconds(house: House) -> Any:
    """A clock on which each look takes 2 ms."""

    def seconds() -> float:
        house.clock.rightNow += 0.002
        now: float = house.clock.rightNow
        return now

    return seconds


def test_lines_over_a_limit_are_refused_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A too long line, and lines past the last one allowed, are 413 for themselves."""
    long_line = b'{"task":"echo","args":{"x":"' + b"a" * house.site.body_max_bytes + b'"}}\n'
    wire = begin(house)
    for at in range(0, len(long_line), 60_000):
        wire.send(piece(long_line[at : at + 60_000]))
    wire.send(piece(LINE % 1) + b"0\r\n\r\n")
    lines = wire.reply().lines()
    assert lines[0]["problem"]["code"] == "too_large"
    assert "id" in lines[1]
    monkeypatch.setattr("jobsvc.http.bulk.BULK_LINES_MAX", 2)
    lines = house.ask("POST", "/v1/jobs/bulk", raw=LINE % 1 + LINE % 2 + LINE % 3).lines()
    assert [line.get("problem", {}).get("status") for line in lines] == [None, None, 413]


def test_keys_in_an_upload(house: House) -> None:
    """A replay gives the same id, another body is refused; both only for their line."""
    keyed = b'{"task":"echo","key":"k","args":{"x":%d}}\n'
    lines = house.ask("POST", "/v1/jobs/bulk", raw=keyed % 1 + LINE % 5 + keyed % 1 + keyed % 2).lines()
    assert lines[0]["id"] == lines[2]["id"]
    assert lines[3]["problem"]["code"] == "key_reused"
    assert stored(house) == 2


def test_atomic_is_all_or_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad line refuses all, with pointers that begin with the line; a good upload is answered as usual."""
    reply = house.ask(
        "POST", "/v1/jobs/bulk?atomic=1", raw=LINE % 1 + b'{"task":"echo","priority":"x"}\n{"task":"nope"}\n'
    )
    problem = reply.json()
    assert (reply.status, problem["code"]) == (422, "invalid_field")
    assert [error["pointer"] for error in problem["errors"]] == ["/2/priority", "/3/task"]
    assert "Nothing was stored" in problem["detail"]
    assert stored(house) == 0
    lines = house.ask("POST", "/v1/jobs/bulk?atomic=1", raw=LINE % 1 + b"\n" + LINE % 2).lines()
    assert [line["line"] for line in lines] == [1, 3]
    assert stored(house) == 2
    assert house.ask("GET", f"/v1/jobs/{lines[1]['id']}").json()["args"] == {"x": 2}
    monkeypatch.setattr("jobsvc.http.bulk.BULK_ATOMIC_MAX", 2)
    over = house.ask("POST", "/v1/jobs/bulk?atomic=1", raw=LINE % 1 * 3)
    assert (over.status, over.json()["code"]) == (413, "too_large")


def test_atomic_looks_at_keys_before_it_stores(house: House) -> None:
    """A key of an earlier job or line with another body refuses all; the same body is a replay as ever."""
    keyed = b'{"task":"echo","key":"%b","args":{"x":%d}}\n'
    house.submit(key="old", args={"x": 1})
    for body in (LINE % 1 + keyed % (b"old", 2), keyed % (b"new", 1) + keyed % (b"new", 2)):
        reply = house.ask("POST", "/v1/jobs/bulk?atomic=1", raw=body)
        assert (reply.status, reply.json()["code"]) == (422, "key_reused")
        assert [error["pointer"] for error in reply.json()["errors"]] == ["/2/key"]
    assert stored(house) == 1
    good = keyed % (b"old", 1) + keyed % (b"new", 1) + keyed % (b"new", 1)
    lines = house.ask("POST", "/v1/jobs/bulk?atomic=1&follow=out", raw=b"")
    assert lines.body == b""
    ids = [line["id"] for line in house.ask("POST", "/v1/jobs/bulk?atomic=1", raw=good).lines()]
    assert ids[1] == ids[2] != ids[0]
    assert stored(house) == 2


def test_follow_gives_one_line_per_outcome_in_order_of_finishing(house: House) -> None:
    """After the ids; a replayed job that had ended is there too; the reply ends when all are done."""
    old = house.done(key="old", result=b'"before"')
    body = LINE % 1 + b'{"task":"nope"}\n' + LINE % 2 + b'{"task":"echo","key":"old"}\n'
    wire = house.start("POST", "/v1/jobs/bulk?follow=out", raw=body)
    first, second = house.worker.started
    house.worker.fail(second)
    [reply] = wire.replies()
    assert not reply.whole
    house.worker.succeed(first, b'{"y":1}')
    lines = wire.reply().lines()
    ids = [line.get("id") for line in lines[:4]]
    assert ids[3] == old["id"]
    assert lines[4] == {"line": 4, "id": old["id"], "state": "succeeded", "result": "before", "error": None}
    assert (lines[5]["line"], lines[5]["id"], lines[5]["state"]) == (3, ids[2], "failed")
    assert lines[5]["error"]["type"] == "ValueError"
    assert lines[6] == {"line": 1, "id": ids[0], "state": "succeeded", "result": {"y": 1}, "error": None}
    assert len(lines) == 7


def test_one_job_on_two_lines_is_followed_on_both(house: House) -> None:
    """The same key twice in one upload."""
    keyed = b'{"task":"echo","key":"k"}\n'
    wire = house.start("POST", "/v1/jobs/bulk?follow=out", raw=keyed + keyed)
    house.worker.succeed(house.worker.started[0], b"1")
    assert [line["line"] for line in wire.reply().lines()] == [1, 2, 1, 2]


def test_outcomes_for_a_slow_reader_are_read_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound only ids are held; nothing is lost, not even when a row is deleted meanwhile."""
    monkeypatch.setattr(bulk_reply, "FOLLOW_HELD_BYTES", 300)
    wire = house.start("POST", "/v1/jobs/bulk?follow=out", raw=b"".join(LINE % n for n in range(6)))
    wire.channel.pauseProducing()
    for n, start in enumerate(house.worker.started):
        house.worker.succeed(start, msgspec.json.encode("r" * 50 + str(n)))
    [reply] = wire.replies()
    ids = [line["id"] for line in reply.lines() if "state" not in line]
    assert len(reply.lines()) == 7
    gone = parse_id(ids[4])
    assert gone is not None
    house.store.delete(gone)
    wire.channel.resumeProducing()
    outcomes = wire.reply().lines()[6:]
    assert [line["line"] for line in outcomes] == [1, 2, 3, 4, 6]
    assert outcomes[-1]["result"].endswith("5")


def test_large_outcomes_are_read_again_a_few_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as have room beside each other; one row that is gone does not end the reply for the others."""
    monkeypatch.setattr(bulk_reply, "FOLLOW_HELD_BYTES", 0)
    monkeypatch.setattr(bulk_reply, "FOLLOW_ROWS", 3)
    monkeypatch.setattr(bulk_reply, "PAGE_BYTES", 8_000)
    wire = house.start("POST", "/v1/jobs/bulk?follow=out", raw=b"".join(LINE % n for n in range(7)))
    wire.channel.pauseProducing()
    for n, start in enumerate(house.worker.started):
        house.worker.succeed(start, msgspec.json.encode("r" * 5_000 + str(n)))
    [reply] = wire.replies()
    for line in reply.lines()[1:4]:
        house.store.delete(parse_id(line["id"]))
    wire.channel.resumeProducing()
    outcomes = [line for line in wire.reply().lines() if "state" in line]
    assert [line["line"] for line in outcomes] == [1, 5, 6, 7]
    assert outcomes[-1]["result"].endswith("6")


def test_large_replays_are_followed_within_the_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyed jobs that ended long ago: their results are read a few at a time, and none is left out."""
    monkeypatch.setattr(waits, "PAGE_BYTES", 8_000)
    monkeypatch.setattr(bulk_reply, "PAGE_BYTES", 8_000)
    body = b"".join(b'{"task":"echo","key":"k%d"}\n' % n for n in range(4))
    house.ask("POST", "/v1/jobs/bulk", raw=body)
    for n, start in enumerate(house.worker.started):
        house.worker.succeed(start, msgspec.json.encode(str(n) * 5_000))
    lines = house.ask("POST", "/v1/jobs/bulk?follow=out", raw=body).lines()[4:]
    assert {line["line"]: line["result"][0] for line in lines} == {1: "0", 2: "1", 3: "2", 4: "3"}


def test_full_reads_large_jobs_one_by_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no room beside the others is still told whole."""
    monkeypatch.setattr(bulk_jobs, "PAGE_BYTES", 1)
    later = {"task": "echo", "run_at": "2027-01-01T00:00:00Z"}
    texts = [msgspec.json.encode({**later, "args": {"x": str(n) * 5_000}}) for n in range(4)]
    lines = house.ask("POST", "/v1/jobs/bulk?full=1", raw=b"\n".join(texts)).lines()
    assert [line["job"]["args"]["x"][0] for line in lines] == ["0", "1", "2", "3"]


def test_what_the_store_refuses_is_told_line_by_line(house: House, flush_failures: Any) -> None:
    """An unexpected error has its number on each line, and is logged once."""

    def broken(jobs: Any) -> Any:
        answer: Deferred[Any] = Deferred()
        answer.errback(RuntimeError("no"))
        return answer

    house.store.submit = broken
    lines = house.ask("POST", "/v1/jobs/bulk", raw=LINE % 1 + LINE % 2).lines()
    assert {line["problem"]["code"] for line in lines} == {"internal"}
    assert len({line["problem"]["detail"] for line in lines}) == 1
    assert len(flush_failures(RuntimeError)) == 1


def test_a_refusal_comes_before_the_upload_and_is_readable(house: House) -> None:
    """Without a token nothing is read: refused at the head, half-closed, the rest discarded."""
    wire = house.wire()
    wire.request("POST", "/v1/jobs/bulk", headers={"Content-Length": "1000000"}, token=None)
    assert wire.reply().status == 401
    assert wire.transport.half_closed
    wire.send(b"x" * 10_000)
    house.after(limits.LINGER_S)
    wire.drop()
    form = house.wire()
    form.request("POST", "/v1/jobs/bulk", headers={"Content-Type": "text/plain", "Content-Length": "10"})
    assert form.reply().json()["code"] == "media_type"
    house.after(limits.LINGER_S)
    form.drop()


def test_a_quiet_upload_is_cut_and_a_slow_one_is_not(house: House) -> None:
    """Streams may last; silence may not."""
    wire = begin(house)
    for n in range(5):
        house.after(limits.IDLE_S - limits.SWEEP_ALL_S)
        wire.send(piece(LINE % n))
    assert not wire.transport.aborted
    house.after(limits.IDLE_S + limits.SWEEP_ALL_S)
    assert wire.reply().status == 408
    house.after(limits.LINGER_S)
    wire.drop()


def test_the_path_of_bulk_spelt_otherwise_works_too(house: House) -> None:
    """Its body is then buffered like any other."""
    lines = house.ask("POST", "/v1/jobs/%62ulk", raw=LINE % 1).lines()
    assert [line["line"] for line in lines] == [1]
    wire = house.wire()
    wire.send(f"POST /v1/jobs/bulk HTTP/1.1\r\n{HEAD}".encode() + chunked(LINE % 1))
    wire.request("GET", "/livez")
    assert [reply.status for reply in wire.replies()] == [200, 200]


def test_nothing_is_kept_of_what_is_behind_the_last_line_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal for all of it, in however many pieces it comes; the bytes are given back."""
    monkeypatch.setattr("jobsvc.http.bulk.BULK_LINES_MAX", 2)
    wire = begin(house)
    for text in (LINE % 1, LINE % 2 + LINE % 3 + LINE % 4, (LINE % 5) * 50, b"\n" * 50, LINE % 6):
        wire.send(piece(text))
    wire.send(piece(b"x") + b"0\r\n\r\n")
    lines = wire.reply().lines()
    assert [line["line"] for line in lines] == [1, 2, 3]
    assert lines[2]["problem"]["code"] == "too_large"
    assert house.site.budget.used == 0
    assert stored(house) == 2


def test_bad_lines_share_their_refusals() -> None:
    """No frame, no cause and no line is held with them; beyond a cap only the code is told."""
    refusals = Refusals()

    def refused(words: str) -> JobsvcError:
        error = JobsvcError("bad_json", words, errors=[{"pointer": "/x", "detail": words}])
        error.__cause__ = ValueError()
        return refusals.kept(error)

    first = refused("odd")
    assert first is refused("odd")
    assert (first.code, first.detail, first.context["errors"][0]["pointer"]) == ("bad_json", "odd", "/x")
    assert (first.__traceback__, first.__cause__, first.__context__) == (None, None, None)
    others = {id(refused(f"odd {n}")) for n in range(DISTINCT_MAX + 500)}
    assert len(others) == DISTINCT_MAX  # all but the first of the cap, and the one for what is beyond
    assert refused("odd") is first
