"""Tasks and the call that waits for the bare result."""

from __future__ import annotations

from tests.http.house import House


def test_tasks_are_listed_in_their_shape(house: House) -> None:
    """By name; one alone; an unknown one is 404 here."""
    tasks = house.ask("GET", "/v1/tasks").json()["tasks"]
    assert [task["name"] for task in tasks] == sorted(house.engine.tasks)
    echo = house.ask("GET", "/v1/tasks/echo").json()
    assert echo == {
        "name": "echo", "doc": "Gives back x.", "executor": "process", "args_schema": {"type": "object"},
        "result_schema": {}, "ports": [{"name": "out", "direction": "out"}], "queue": "default", "retries": 0,
        "timeouts": {"run": None, "idle": None, "total": None}, "concurrency": None, "uses": [], "module": "tasks",
    }  # fmt: skip
    unknown = house.ask("GET", "/v1/tasks/nope")
    assert (unknown.status, unknown.json()["status"], unknown.json()["code"]) == (404, 404, "no_such_task")


def test_a_call_gives_the_bare_result(house: House) -> None:
    """The body is the arguments, by name or by position; Location says where the job is."""
    wire = house.start("POST", "/v1/tasks/echo/call", {"x": 1})
    start = house.worker.started.pop()
    assert start.body == b'{"x":1}'
    house.worker.succeed(start, b'{"answer":42}')
    reply = wire.reply()
    assert (reply.status, reply.body) == (200, b'{"answer":42}')
    assert house.ask("GET", reply.headers["location"]).json()["result"] == {"answer": 42}
    by_position = house.start("POST", "/v1/tasks/add/call", [1])
    house.worker.succeed(house.worker.started.pop(), b"2")
    assert by_position.reply().json() == 2
    without = house.start("POST", "/v1/tasks/echo/call")
    house.worker.succeed(house.worker.started.pop(), b"null")
    assert without.reply().json() is None


def test_a_call_that_fails_is_424_and_one_that_takes_too_long_504(house: House) -> None:
    """Both with Location; the job goes on."""
    wire = house.start("POST", "/v1/tasks/echo/call", {})
    house.worker.fail(house.worker.started.pop())
    assert (wire.reply().status, wire.reply().json()["code"]) == (424, "job_failed")
    slow = house.start("POST", "/v1/tasks/echo/call", {}, {"Prefer": "wait=2"})
    default = house.start("POST", "/v1/tasks/echo/call", {})
    house.after(3)
    assert (slow.reply().status, slow.reply().json()["code"]) == (504, "wait_over")
    assert slow.reply().headers["preference-applied"] == "wait=2"
    assert house.ask("GET", slow.reply().headers["location"]).json()["state"] == "running"
    assert default.sent == b""
    house.after(58)
    assert default.reply().status == 504


def test_what_a_call_refuses(house: House) -> None:
    """Wrong arguments before anything is stored."""
    for body, status, code in (
        (b'{"n":"x"}', 422, "invalid_args"),
        (b'"text"', 422, "invalid_args"),
        (b"{", 400, "bad_json"),
        (b'{"n":1e999}', 400, "bad_json"),
    ):
        reply = house.ask("POST", "/v1/tasks/add/call", raw=body)
        assert (reply.status, reply.json()["code"]) == (status, code), reply
    unknown = house.ask("POST", "/v1/tasks/nope/call", {})
    assert (unknown.status, unknown.json()["code"]) == (404, "no_such_task")
    assert house.ask("GET", "/v1/jobs").json()["jobs"] == []


def test_a_call_is_idempotent_by_its_header(house: House) -> None:
    """The second call waits for the job of the first."""
    first = house.start("POST", "/v1/tasks/echo/call", {"x": 1}, {"Idempotency-Key": "k"})
    second = house.start("POST", "/v1/tasks/echo/call", {"x": 1}, {"Idempotency-Key": "k"})
    [start] = house.worker.started
    house.worker.succeed(start, b"5")
    assert (first.reply().body, second.reply().body) == (b"5", b"5")
    assert "idempotency-replayed" not in first.reply().headers
    assert second.reply().headers["idempotency-replayed"] == "true"
    other = house.ask("POST", "/v1/tasks/echo/call", {"x": 2}, {"Idempotency-Key": "k"})
    assert (other.status, other.json()["code"]) == (422, "key_reused")
