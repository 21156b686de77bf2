"""Submitting: the promise of 201, keys, waits, streams, and that a client may leave."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from jobsvc.model.errors import JobsvcError
from tests.http.house import House


def test_a_submit_answers_201_with_the_job_and_where_it_is(house: House) -> None:
    """201, Location, ETag, and every field of the shape."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo", "args": {"x": [1, "2"]}, "labels": {"a": "b"}})
    job = reply.json()
    assert reply.status == 201
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert reply.headers["etag"] == f'"r{job["revision"]}"'
    assert job["args"] == {"x": [1, "2"]}
    assert job["labels"] == {"a": "b"}
    assert job["state"] == "running"
    assert job["created_at"].endswith("Z")
    assert set(job) == {
        "id", "task", "args", "executor", "queue", "priority", "labels", "tenant", "state", "done", "reason",
        "revision", "epoch", "attempt", "max_attempts", "backoff", "on_lost", "created_at", "run_at", "expires_at",
        "started_at", "finished_at", "timeouts", "progress", "result", "error", "durability", "parent", "rerun_of",
        "request_id", "traceparent", "links",
    }  # fmt: skip


def test_the_same_key_and_body_is_the_same_job(house: House) -> None:
    """200 and Idempotency-Replayed, by body key and by header alike."""
    first = house.submit(key="k", args={"x": 1})
    again = house.ask("POST", "/v1/jobs", {"task": "echo", "args": {"x": 1}, "key": "k"})
    by_header = house.ask("POST", "/v1/jobs", {"args": {"x": 1}, "task": "echo"}, {"Idempotency-Key": "k"})
    for reply in (again, by_header):
        assert (reply.status, reply.headers["idempotency-replayed"]) == (200, "true")
        assert reply.json()["id"] == first["id"]
    other = house.ask("POST", "/v1/jobs", {"task": "echo", "args": {"x": 2}, "key": "k"})
    assert (other.status, other.json()["code"]) == (422, "key_reused")
    both = house.ask("POST", "/v1/jobs", {"task": "echo", "key": "k"}, {"Idempotency-Key": "other"})
    assert (both.status, both.json()["code"]) == (422, "invalid_field")


def test_prefer_wait_answers_when_the_job_is_done(house: House) -> None:
    """The reply waits for the outcome, and says how long it would have."""
    wire = house.start("POST", "/v1/jobs", {"task": "echo", "args": {"x": 5}}, {"Prefer": "wait=10"})
    assert wire.sent == b""
    house.worker.succeed(house.worker.started[0], b'{"y":5}')
    reply = wire.reply()
    assert (reply.status, reply.headers["preference-applied"]) == (201, "wait=10")
    assert (reply.json()["done"], reply.json()["result"]) == (True, {"y": 5})


def test_prefer_wait_gives_up_when_the_time_is_up(house: House) -> None:
    """The body's `done` tells which it was; a longer wait than 300 s is cut."""
    wire = house.start("POST", "/v1/jobs", {"task": "echo"}, {"Prefer": "respond-async, wait=9999"})
    house.after(299)
    assert wire.sent == b""
    house.after(2)
    reply = wire.reply()
    assert (reply.status, reply.headers["preference-applied"], reply.json()["done"]) == (
        201,
        "wait=300",
        False,
    )


def test_submit_and_stream(house: House) -> None:
    """Accept: NDJSON gives the job's events from the first, to the end."""
    wire = house.start("POST", "/v1/jobs", {"task": "echo"}, {"Accept": "application/x-ndjson"})
    start = house.worker.started[0]
    house.worker.items(start, "a", "b")
    [open_reply] = wire.replies()
    assert (open_reply.status, open_reply.whole) == (201, False)
    assert open_reply.headers["content-type"] == "application/x-ndjson"
    house.worker.succeed(start, b"1")
    events = wire.reply().lines()
    assert [event["kind"] for event in events] == ["job", "state", "item", "item", "state", "end"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 5]
    assert events[0]["data"]["state"] == "queued"
    assert events[-1]["data"]["result"] == 1


def test_a_client_that_leaves_in_the_middle_of_a_submit_has_submitted(house: House) -> None:
    """Klein cancels the handler; the commit goes on, and the job runs."""
    held: Deferred[None] = Deferred()
    submit = house.store.submit
    house.store.submit = lambda jobs: held.addCallback(lambda _: submit(jobs))
    wire = house.start("POST", "/v1/jobs", {"task": "echo"})
    wire.leave()
    held.callback(None)
    assert len(house.worker.started) == 1
    assert len(house.ask("GET", "/v1/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b"{", 400, "bad_json", None),
        (b'{"task":"echo"} x', 400, "bad_json", None),
        (b"\xef\xbb\xbf{}", 400, "bad_json", None),
        (b'{"task":"\xff"}', 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":"\xff"}}', 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":NaN}}', 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":1e999}}', 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":1' + b"0" * 5000 + b"}}", 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":"\\ud800"}}', 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":' + b"[" * 80 + b"]" * 80 + b"}}", 400, "bad_json", None),
        (b'{"task":"echo","args":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", 400, "bad_json", None),
        (b"[]", 422, "invalid_field", ""),
        (b"null", 422, "invalid_field", ""),
        (b"{}", 422, "invalid_field", "/task"),
        (b'{"task":"echo","colour":1}', 422, "invalid_field", "/colour"),
        (b'{"task":"echo","priority":"high"}', 422, "invalid_field", "/priority"),
        (b'{"task":"echo","priority":101}', 422, "invalid_field", "/priority"),
        (b'{"task":"echo","timeouts":{"run":-1}}', 422, "invalid_field", "/timeouts/run"),
        (b'{"task":"echo","labels":{"a":1}}', 422, "invalid_field", "/labels"),
        (b'{"task":"echo","run_at":"2026-01-01T00:00:00"}', 422, "invalid_field", "/run_at"),
        (b'{"task":"nope"}', 422, "no_such_task", "/task"),
        (b'{"task":"add","args":{"n":"x"}}', 422, "invalid_args", "/args/n"),
        (b'{"task":"echo","args":{"x":"' + b"a" * 300_000 + b'"}}', 413, "too_large", "/args"),
    ],
)
def test_what_a_submit_refuses(
    house: House, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    """Not JSON is 400, the wrong shape 422 with the pointer; nothing is stored."""
    reply = house.ask("POST", "/v1/jobs", raw=body)
    problem: dict[str, Any] = reply.json()
    assert (reply.status, problem["code"]) == (status, code), problem
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem["instance"] == reply.headers["x-request-id"]
    assert [error["pointer"] for error in problem.get("errors", [])] == ([] if pointer is None else [pointer])
    assert house.ask("GET", "/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, "curl"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "--json"),
        ({"Content-Type": "text/plain"}, "application/json"),
        ({"Content-Type": ""}, "application/json"),
        ({"Content-Type": "application/json; charset=latin-1"}, "UTF-8"),
        ({"Content-Encoding": "gzip"}, "plain"),
    ],
)
def test_other_media_types_are_415_and_say_what_to_do(
    house: House, headers: dict[str, str], words: str
) -> None:
    """What `curl -d` sends gets a hint at `curl --json`."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"}, headers)
    assert (reply.status, reply.json()["code"]) == (415, "media_type")
    assert words in reply.json()["detail"]


def test_a_draining_daemon_takes_no_job_and_says_when_to_come_back(house: House) -> None:
    """503, Retry-After, retry_safe; reads go on."""
    job = house.submit()
    house.engine.stop_claiming()
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"})
    assert (reply.status, reply.json()["code"], reply.json()["retry_safe"]) == (503, "draining", True)
    assert int(reply.headers["retry-after"]) >= 1
    assert house.ask("GET", f"/v1/jobs/{job['id']}").status == 200
    bulk = house.ask("POST", "/v1/jobs/bulk", raw=b'{"task":"echo"}\n')
    assert (bulk.status, bulk.json()["code"]) == (503, "draining")


@pytest.mark.parametrize(("code", "status"), [("disk_full", 507), ("overloaded", 503)])
def test_what_the_store_cannot_take_now_may_be_sent_again(house: House, code: Any, status: int) -> None:
    """Nothing was stored, and the problem says that the same request is safe to repeat."""
    house.store.submit = lambda jobs: fail(JobsvcError(code, "not now", retry_after_s=2))
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"})
    assert (reply.status, reply.json()["code"], reply.json()["retry_safe"]) == (status, code, True)
    assert reply.headers["retry-after"] == "2"


def test_an_error_of_our_own_is_500_with_a_number_and_no_traceback(house: House, flush_failures: Any) -> None:
    """The traceback is in the log under that number."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    house.store.submit = broken
    reply = house.ask("POST", "/v1/jobs", {"task": "echo"})
    assert (reply.status, reply.json()["code"]) == (500, "internal")
    assert b"secret" not in reply.body
    assert len(flush_failures(RuntimeError)) == 1


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ('"queue":"a b"', "/queue: a name is expected: letters, digits, "),
        ('"run_at":"tomorrow"', "/run_at: a time with a zone is expected, such as 2026-"),
        ('"on_lost":"x"', "/on_lost: Invalid enum value 'x'; GET /openapi.json lists "),
        ('"labels":{"a":"\\ud800"}', "The body is not JSON: a string holds half of a surrogate pair"),
    ],
)
def test_words_are_for_those_who_send_the_request(house: House, field: str, words: str) -> None:
    """Neither a pattern nor the name of a standard."""
    reply = house.ask("POST", "/v1/jobs", raw=f'{{"task":"echo",{field}}}'.encode())
    assert reply.json()["detail"].startswith(words)


def test_no_body_at_all_is_said_to_be_none(house: House) -> None:
    """Not that it was cut off."""
    assert house.ask("POST", "/v1/jobs").json()["detail"] == "The body is not JSON: it is empty."
