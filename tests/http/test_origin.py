"""What a client calls its request is kept with the job, shown with it, and handed to its worker."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.http.house import House

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BOTH = {"X-Request-ID": "front-7.a:b_c", "traceparent": TRACE}


def named(job: dict[str, Any]) -> tuple[str | None, str | None]:
    return job["request_id"], job["traceparent"]


def test_a_submit_keeps_what_its_request_was_called(house: House) -> None:
    """In the reply, in every later look, and on the way to the worker."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"}, BOTH)
    job = reply.json()
    assert named(job) == ("front-7.a:b_c", TRACE)
    assert reply.headers["x-request-id"] == "front-7.a:b_c"
    assert house.worker.started[-1].origin == ("front-7.a:b_c", TRACE)
    house.worker.succeed(house.worker.started[-1])
    assert named(house.ask("GET", f"/v1/jobs/{job['id']}").json()) == ("front-7.a:b_c", TRACE)
    assert named(house.ask("GET", "/v1/jobs").json()["jobs"][0]) == ("front-7.a:b_c", TRACE)


def test_a_request_without_names_leaves_none(house: House) -> None:
    """The id that the reply carries then is ours: it is in no log of the client's."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"})
    assert named(reply.json()) == (None, None)
    assert reply.headers["x-request-id"]
    assert house.worker.started[-1].origin is None


def test_one_of_the_two(house: House) -> None:
    job = house.ask("POST", "/v1/jobs", {"task": "echo"}, {"traceparent": TRACE}).json()
    assert named(job) == (None, TRACE)
    assert house.worker.started[-1].origin == (None, TRACE)
    assert named(house.ask("POST", "/v1/jobs", {"task": "echo"}, {"X-Request-ID": "r"}).json()) == ("r", None)


def test_what_is_malformed_is_passed_over(house: House) -> None:
    """By the rules of W3C Trace Context; a request id that no log should carry; two of either."""
    good = TRACE.removeprefix("00")
    for trace in (
        "", "x", TRACE[:-1], TRACE + "0", TRACE.upper(), "ff" + good, "0g" + good, f"{TRACE}-more",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        f"{TRACE}\r\ntraceparent: {TRACE}", f"{TRACE}, {TRACE}",
    ):  # fmt: skip
        job = house.ask("POST", "/v1/jobs", {"task": "echo"}, {"traceparent": trace}).json()
        assert job["traceparent"] is None, trace
    for later in ("01" + good, f"cc{good}-what-will-be"):
        job = house.ask("POST", "/v1/jobs", {"task": "echo"}, {"traceparent": later}).json()
        assert job["traceparent"] == later
    for request_id in ("a b", "x" * 65, 'quo"te', "ü", "one\r\nX-Request-ID: two"):
        reply = house.ask("POST", "/v1/jobs", {"task": "echo"}, {"X-Request-ID": request_id})
        assert reply.json()["request_id"] is None, request_id


def test_an_upload_names_all_its_lines(house: House) -> None:
    body = b'{"task":"echo"}\n{"task":"idle"}\n{"task":"echo","key":"k"}'
    headers = BOTH | {"Content-Type": "application/x-ndjson"}
    ids = [line["id"] for line in house.ask("POST", "/v1/jobs/bulk", raw=body, headers=headers).lines()]
    rows = house.ask("GET", f"/v1/jobs?id={','.join(ids)}").json()["jobs"]
    assert [named(row) for row in rows] == [("front-7.a:b_c", TRACE)] * 3
    assert {start.origin for start in house.worker.started} == {("front-7.a:b_c", TRACE)}


def test_a_retry_is_its_own_request(house: House) -> None:
    """The new job has the names of who asked for it again, or none; a replay keeps those of the first."""
    first = house.ask("POST", "/v1/jobs", {"task": "echo", "key": "k"}, BOTH).json()
    house.worker.succeed(house.worker.started[-1])
    target = f"/v1/jobs/{first['id']}/retry"
    assert named(house.ask("POST", target, headers={"X-Request-ID": "again"}).json()) == ("again", None)
    assert named(house.ask("POST", target).json()) == (None, None)
    replay = house.ask("POST", "/v1/jobs", {"task": "echo", "key": "k"}, {"X-Request-ID": "other"})
    assert named(replay.json()) == ("front-7.a:b_c", TRACE)


def test_a_call_keeps_them_too(house: House) -> None:
    wire = house.start("POST", "/v1/tasks/echo/call", {}, BOTH)
    assert house.worker.started[-1].origin == ("front-7.a:b_c", TRACE)
    house.worker.succeed(house.worker.started[-1], b"3")
    assert wire.reply().json() == 3


def test_names_are_no_part_of_the_body(house: House) -> None:
    """They cannot be forged in it, and do not change what "the same body" is."""
    forged = house.ask("POST", "/v1/jobs", {"task": "echo", "request_id": "x"})
    assert forged.json()["errors"][0]["pointer"] == "/request_id"
    job = house.ask("POST", "/v1/jobs", {"task": "echo", "key": "k"}, BOTH).json()
    again = house.ask("POST", "/v1/jobs", {"task": "echo", "key": "k"}, {"traceparent": TRACE})
    assert (again.status, again.json()["id"]) == (200, job["id"])
    assert msgspec.json.decode(again.body)["traceparent"] == TRACE
