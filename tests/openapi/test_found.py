"""What the fuzzer found once, each by itself."""

from __future__ import annotations

import msgspec
import pytest

from jobsvc.model.clock import TIME_MAX_US, time_text
from tests.http.house import House


def test_a_newline_behind_a_name_is_refused(house: House) -> None:
    """`$` in a pattern means the end to JSON Schema, and to Python also the place before a last newline."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo", "queue": "default\n"})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/queue")
    assert house.ask("GET", "/v1/jobs?queue=default%0A").status == 400
    assert house.submit("echo", queue="default")["queue"] == "default"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_a_word_beside_ids_is_no_id(house: House, method: str) -> None:
    """/v1/jobs/bulk is a path of its own, with POST alone."""
    reply = house.ask(method, "/v1/jobs/bulk")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert house.ask("GET", "/v1/jobs/bulky").json()["detail"].startswith("There is no such job")
    assert house.ask("PUT", "/v1/jobs/bulky").headers["allow"] == "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize(
    ("wait", "status"),
    [("5e-324", 200), ("1E2", 200), ("1.7976931348623157e+308", 200), ("0.25", 200), ("1e9999", 400),
     ("e1", 400), ("-1", 400), ("", 400), (".5", 400), ("0x1", 400), ("inf", 400)],
)  # fmt: skip
def test_a_wait_is_any_number_of_json(house: House, wait: str, status: int) -> None:
    """Not only the usual digits; what is longer than the longest wait is cut."""
    job = house.done()["id"]
    assert house.ask("GET", f"/v1/jobs/{job}?wait={wait.replace('+', '%2B')}").status == status


@pytest.mark.parametrize(("task", "status"), [("echo", 200), ("nöpe", 400), ("a%00b", 400), ("9", 400)])
def test_a_filter_by_name_wants_a_name(house: House, task: str, status: int) -> None:
    """What cannot be a name is a mistake, not an empty list."""
    assert house.ask("GET", f"/v1/jobs?task={task}").status == status


@pytest.mark.parametrize("field", ["run_at", "expires_at"])
@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+12:00", "0202-12-30T14:23:41.7Z", "9999-12-31T23:59:59-12:00"]
)
def test_a_time_that_no_reply_could_show_is_refused(house: House, field: str, moment: str) -> None:
    """Stored, its row would have kept every list from being read."""
    reply = house.ask("POST", "/v1/jobs", {"task": "echo", field: moment})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, f"/{field}")
    line = msgspec.json.encode({"task": "echo", field: moment})
    bulk = house.ask("POST", "/v1/jobs/bulk", raw=line, headers={"Content-Type": "application/x-ndjson"})
    assert bulk.lines()[0]["problem"]["code"] == "invalid_field"
    assert house.ask("GET", "/v1/jobs").json()["jobs"] == []


def test_times_of_any_row_can_be_shown() -> None:
    """Of whatever year; what is out of reach, from an older database, as the nearest."""
    assert time_text(0) == "1970-01-01T00:00:00.000000Z"
    assert time_text(1_795_000_000_000_001) == "2026-11-18T11:06:40.000001Z"
    assert time_text(TIME_MAX_US) == "9999-12-31T23:59:59.999999Z"
    assert time_text(-(2**62)) == "1970-01-01T00:00:00.000000Z"
    assert time_text(2**62) == "9999-12-31T23:59:59.999999Z"
