"""Admission at the door: 429 and 503, when to come again, per line of an upload, nothing stored. B66."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail

from jobsvc.engine import quotas as rules
from jobsvc.engine.engine import EngineConfig
from jobsvc.http import budget
from jobsvc.model.errors import JobsvcError
from tests.http.house import House
from tests.http.wire import Reply

KEPT = {"task": "idle"}
"""Stays queued: no worker offers its executor."""


@pytest.fixture
def small() -> Iterator[House]:
    """Four jobs may wait."""
    made = House(config=EngineConfig(queue_max=4))
    yield made
    made.close()


def keyed_lines(house: House, keys: str, query: str = "", **fields: Any) -> Reply:
    """An upload of one line for each letter, which is its key."""
    body = b"\n".join(msgspec.json.encode({**KEPT, "key": key, **fields}) for key in keys)
    return house.ask(
        "POST", f"/v1/jobs/bulk{query}", raw=body, headers={"Content-Type": "application/x-ndjson"}
    )


def stored(house: House) -> int:
    return len(house.ask("GET", "/v1/jobs?limit=1000").json()["jobs"])


def upload(house: House, lines: int, query: str = "") -> Reply:
    body = b"\n".join([msgspec.json.encode(KEPT)] * lines)
    return house.ask(
        "POST", f"/v1/jobs/bulk{query}", raw=body, headers={"Content-Type": "application/x-ndjson"}
    )


def test_a_full_queue(small: House) -> None:
    """429 queue_full, when to come again in header and body, and nothing is stored."""
    for _ in range(4):
        assert small.ask("POST", "/v1/jobs", KEPT).status == 201
    refused = small.ask("POST", "/v1/jobs", KEPT)
    problem = refused.json()
    assert (refused.status, problem["code"], problem["retry_safe"]) == (429, "queue_full", True)
    assert refused.headers["retry-after"] == "300"
    assert problem["retry_after_s"] == 300
    assert (refused.headers["ratelimit-policy"], refused.headers["ratelimit"]) == (
        '"queue";q=4',
        '"queue";r=0',
    )
    assert stored(small) == 4
    figures = small.ask("GET", "/metrics").body.decode()
    assert 'jobsvc_not_admitted_total{code="queue_full"} 1.0' in figures
    assert 'jobsvc_waiting{tenant="default"} 4.0' in figures
    call = small.ask("POST", "/v1/tasks/idle/call", {})
    assert (call.status, call.json()["code"]) == (429, "queue_full")
    assert stored(small) == 4


def test_a_replay_needs_no_room(small: House) -> None:
    """Who sends a kept job again by its key gets it, also beside a full queue; another body is told so."""
    key = {"Idempotency-Key": "k"}
    job = small.ask("POST", "/v1/jobs", KEPT, key).json()
    for _ in range(3):
        small.ask("POST", "/v1/jobs", KEPT)
    assert small.ask("POST", "/v1/jobs", KEPT, {"Idempotency-Key": "new"}).status == 429
    again = small.ask("POST", "/v1/jobs", KEPT, key)
    assert (again.status, again.json()["id"], again.headers["idempotency-replayed"]) == (
        200,
        job["id"],
        "true",
    )
    other = small.ask("POST", "/v1/jobs", KEPT | {"priority": 1}, key)
    assert (other.status, other.json()["code"]) == (422, "key_reused")
    assert stored(small) == 4


def test_a_line_that_is_a_replay_needs_no_room(small: House) -> None:
    """Each line of an upload beside a full queue is answered as its single submit would be."""
    first = [line["id"] for line in keyed_lines(small, "abc").lines()]
    lines = keyed_lines(
        small, "cdaxb"
    ).lines()  # there is room for one; `c` takes it before it is known to be none
    assert [line.get("id") for line in lines] == [first[2], None, first[0], None, first[1]]
    assert [lines[at]["problem"]["code"] for at in (1, 3)] == ["queue_full"] * 2
    filled = keyed_lines(small, "dc").lines()
    assert [line.get("id") for line in filled][1] == first[2]
    again = keyed_lines(small, "abcd", "?full=1").lines()
    assert [line["job"]["id"] for line in again] == [*first, filled[0]["id"]]
    other = keyed_lines(small, "ab", priority=5).lines()
    assert [line["problem"]["code"] for line in other] == ["key_reused"] * 2
    assert stored(small) == 4


def test_lines_that_cannot_be_looked_up_stay_refused(small: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that were stored are told so."""
    keyed_lines(small, "abc")
    monkeypatch.setattr(small.store, "by_keys", lambda *_: fail(JobsvcError("overloaded", "too many reads")))
    lines = keyed_lines(small, "da").lines()
    assert ("id" in lines[0], lines[1]["problem"]["code"]) == (True, "queue_full")


def test_an_atomic_upload_of_replays_needs_no_room(small: House) -> None:
    """One new line among them, and all are refused."""
    first = keyed_lines(small, "abcd").lines()
    assert keyed_lines(small, "abcd", "?atomic=1").lines() == first
    mixed = keyed_lines(small, "abcx", "?atomic=1")
    assert (mixed.status, mixed.json()["code"]) == (429, "queue_full")
    other = keyed_lines(small, "ab", "?atomic=1", priority=5)
    assert (other.status, other.json()["code"]) == (422, "key_reused")
    assert stored(small) == 4


def test_replayed_lines_are_followed_beside_a_full_queue(small: House) -> None:
    """Their outcomes come as those of any other line."""
    first = keyed_lines(small, "abcd").lines()
    small.ask("POST", f"/v1/jobs/{first[1]['id']}/cancel")
    keyed_lines(small, "e")
    body = b"\n".join(msgspec.json.encode({**KEPT, "key": key}) for key in "xb")
    reply = small.ask(
        "POST", "/v1/jobs/bulk?follow=out", raw=body, headers={"Content-Type": "application/x-ndjson"}
    ).lines()
    assert reply[0]["problem"]["code"] == "queue_full"
    assert [(line["line"], line["id"], line.get("state")) for line in reply[1:]] == [
        (2, first[1]["id"], None),
        (2, first[1]["id"], "cancelled"),
    ]


def test_reads_and_cancels_go_on(small: House) -> None:
    """What is there can be looked at and cancelled, which makes room."""
    jobs = [small.ask("POST", "/v1/jobs", KEPT).json() for _ in range(4)]
    assert small.ask("POST", "/v1/jobs", KEPT).status == 429
    assert small.ask("GET", f"/v1/jobs/{jobs[0]['id']}").status == 200
    assert small.ask("POST", f"/v1/jobs/{jobs[0]['id']}/cancel").status == 200
    assert small.ask("POST", "/v1/jobs", KEPT).status == 201
    retried = small.ask("POST", f"/v1/jobs/{jobs[0]['id']}/retry")
    assert (retried.status, retried.json()["code"]) == (429, "queue_full")


def test_the_headers_come_with_half_of_a_limit(small: House) -> None:
    """Neither before, nor on what is no submit."""
    replies = [small.ask("POST", "/v1/jobs", KEPT) for _ in range(3)]
    assert [reply.headers.get("ratelimit") for reply in replies] == [
        None, '"queue";r=2', '"queue";r=1',
    ]  # fmt: skip
    assert "ratelimit" not in small.ask("GET", "/v1/jobs").headers


def test_an_upload_is_refused_line_by_line(small: House) -> None:
    """The lines for which there is room are taken, the others say why; of an atomic one all or none."""
    reply = upload(small, 6)
    lines = reply.lines()
    assert [("id" in line) for line in lines] == [True] * 4 + [False] * 2
    assert [line["line"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[4]["problem"]["code"] == "queue_full"
    assert lines[4]["problem"]["status"] == 429
    assert lines[5]["problem"]["retry_after_s"] == 300
    assert reply.headers["ratelimit"] == '"queue";r=0'
    assert stored(small) == 4
    for job in small.ask("GET", "/v1/jobs").json()["jobs"][:2]:
        small.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    atomic = upload(small, 3, "?atomic=1")
    assert (atomic.status, atomic.json()["code"]) == (429, "queue_full")
    assert atomic.headers["retry-after"] == "1"  # two have just gone
    assert atomic.headers["ratelimit"].partition(";t")[0] == '"queue";r=2'
    assert stored(small) == 4
    assert upload(small, 9, "?atomic=1").json()["code"] == "too_large"
    assert len(upload(small, 2, "?atomic=1").lines()) == 2


def test_a_rate_of_submits() -> None:
    """429 rate_limited; after the seconds it says, it is taken."""
    house = House(config=EngineConfig(queue_max=0, submit_rate=0.5))
    assert all("id" in line for line in upload(house, 5).lines())
    refused = house.ask("POST", "/v1/jobs", KEPT)
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (
        429,
        "rate_limited",
        "2",
    )
    assert refused.headers["ratelimit-policy"] == '"submit";q=5;w=10'
    assert refused.headers["ratelimit"] == '"submit";r=0;t=10'
    house.after(2)
    assert house.ask("POST", "/v1/jobs", KEPT).status == 201
    info = house.ask("GET", "/v1/info").json()
    assert (info["limits"]["queue_max"], info["limits"]["submit_rate"]) == (0, 0.5)
    house.close()


def test_the_store_is_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 overloaded for single submits; an upload waits for its own instead, and loses nothing."""
    monkeypatch.setattr(rules, "SUBMITS_IN_FLIGHT_MAX", 6)
    submit, waiting = house.store.submit, []

    def later(jobs: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        waiting.append((answer, jobs))
        return answer

    house.store.submit = later
    wires = [house.start("POST", "/v1/jobs", KEPT) for _ in range(6)]
    refused = house.ask("POST", "/v1/jobs", KEPT)
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (
        503,
        "overloaded",
        "300",
    )
    assert house.ask("GET", "/v1/jobs").status == 200
    house.store.submit = submit
    for answer, jobs in waiting:
        submit(jobs).chainDeferred(answer)
    assert all(wire.reply().status == 201 for wire in wires)
    assert house.ask("POST", "/v1/jobs", KEPT).status == 201


def test_an_upload_goes_as_fast_as_its_own_lines(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the daemon has much in hand, it has no more than one group of lines on its way, and is read no further."""
    monkeypatch.setattr(rules, "SUBMITS_IN_FLIGHT_MAX", 2)
    submit, waiting = house.store.submit, []

    def later(jobs: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        waiting.append((answer, jobs))
        return answer

    house.store.submit = later
    wire = house.wire()
    body = msgspec.json.encode(KEPT) + b"\n"
    wire.request("POST", "/v1/jobs/bulk", body, {"Content-Length": str(3 * len(body))})
    wire.send(body)
    assert [len(jobs) for _, jobs in waiting] == [1]
    assert wire.transport.producerState == "paused"
    house.store.submit = submit
    answer, jobs = waiting[0]
    submit(jobs).chainDeferred(answer)
    house.after(0)
    assert wire.transport.producerState == "producing"
    wire.send(body)
    house.after(0)
    assert ["id" in line for line in wire.reply().lines()] == [True] * 3


def test_bytes_in_hand(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body for which there is no room is refused by its length, or while it comes; a small one never is."""
    bodies = house.site.budget
    monkeypatch.setattr(bodies, "max_bytes", 20_000)
    half = house.wire()
    big = msgspec.json.encode({"task": "echo", "args": {"x": "y" * 12_000}})
    half.request("POST", "/v1/jobs", big[:-1], {"Content-Length": str(len(big))})
    assert bodies.used == len(big) - 1
    refused = house.ask("POST", "/v1/jobs", raw=big)
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (
        503,
        "overloaded",
        "300",
    )
    several = [house.wire() for _ in range(3)]
    for wire in several:  # each would fit alone
        wire.request("POST", "/v1/jobs", b"", {"Content-Length": "7000"})
        wire.send(b"x" * 5_000)
    assert [bool(wire.sent) for wire in several] == [False, True, True]
    assert bodies.used <= 20_000
    several[0].leave()
    wire = house.wire()
    wire.request("POST", "/v1/jobs", b"", {"Transfer-Encoding": "chunked", "Content-Length": ""})
    wire.send(b"%x\r\n%b\r\n" % (9_000, b"x" * 9_000))
    assert wire.replies()[0].status == 503
    job = house.ask("POST", "/v1/jobs", KEPT).json()
    assert house.ask("POST", f"/v1/jobs/{job['id']}/cancel", {"mode": "polite"}).status == 200
    half.send(big[-1:])
    assert half.reply().status == 201
    assert bodies.used == 0
    assert house.ask("POST", "/v1/jobs", raw=big).status == 201


def test_bytes_are_given_back_however_it_ends(house: House) -> None:
    """A client that leaves, a body over the limit, a refusal, a wait, an upload: nothing is counted for ever."""
    bodies = house.site.budget
    big = msgspec.json.encode({"task": "echo", "args": {"x": "y" * 12_000}})
    gone = house.wire()
    gone.request("POST", "/v1/jobs", big[:-5], {"Content-Length": str(len(big))})
    assert bodies.used
    gone.leave()
    assert bodies.used == 0
    assert house.ask("POST", "/v1/jobs", raw=b"[" + big).status == 422
    house.start("POST", "/v1/jobs", raw=big, headers={"Prefer": "wait=300"})
    assert bodies.used == 0  # it is stored: the wait does not hold it
    over = house.wire()
    size = house.site.body_max_bytes + 10
    over.request("POST", "/v1/jobs", b"", {"Transfer-Encoding": "chunked", "Content-Length": ""})
    over.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
    assert over.reply().status == 413
    assert bodies.used == 0
    assert [("id" in line) for line in upload(house, 50).lines()] == [True] * 50
    assert upload(house, 50, "?atomic=1").status == 200
    left = house.wire()
    left.request("POST", "/v1/jobs/bulk", big + b"\n" + big[:100], {"Content-Length": str(2 * len(big))})
    assert bodies.used
    left.leave()
    house.after(0)
    assert bodies.used == 0


def test_small_bodies_are_small() -> None:
    """All connections together stay far below what larger bodies may take."""
    from jobsvc.http.limits import CONNECTIONS_MAX

    assert CONNECTIONS_MAX * budget.SMALL_BODY_BYTES < budget.BODIES_MAX_BYTES / 2
