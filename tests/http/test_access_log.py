"""The access log: off unless asked for, without queries, with the ids; nothing hostile forges a line of it (P11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from zope.interface import implementer

from jobsvc.logs.lines import human_line, json_line
from jobsvc.model.job import Job
from tests.http.house import House
from tests.http.wire import TOKEN


@implementer(ILogObserver)
class Written:
    """All lines, made when the event comes, as the daemon's log does."""

    def __init__(self) -> None:
        self.json: list[str] = []
        self.human: list[str] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.json.append(json_line(event))
        self.human.append(human_line(event))

    def of(self, action: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.json]
        return [line for line in lines if line.get("action") == action]


@pytest.fixture
def written() -> Iterator[Written]:
    """All that is logged."""
    seen = Written()
    globalLogPublisher.addObserver(seen)
    yield seen
    globalLogPublisher.removeObserver(seen)


def test_off_by_default(house: House, written: Written) -> None:
    """Requests are counted, not written down."""
    house.ask("GET", "/livez")
    assert written.of("access") == []


def test_one_line_a_request_without_its_query(house: House, written: Written) -> None:
    """At level debug: what was asked, what was answered, under the client's own id."""
    house.api.access_log = True
    house.ask("GET", "/v1/jobs?label.x=hunter2", headers={"X-Request-ID": "mine-7"})
    (line,) = written.of("access")
    assert (line["level"], line["request_id"]) == ("debug", "mine-7")
    assert line["message"].startswith("127.0.0.1 GET /v1/jobs 200 in 0.0")
    assert (line["fields"]["status"], line["fields"]["route"]) == (200, "jobs.list")
    assert "hunter2" not in str(written.json)


def test_behind_a_proxy_the_client_is_named(house: House, written: Written) -> None:
    """As in the audit log; the proxy's own address says nothing."""
    house.api.access_log = house.site.behind_proxy = True
    house.ask("GET", "/livez", headers={"X-Forwarded-For": "192.0.2.7"})
    (line,) = written.of("access")
    assert line["message"].startswith("192.0.2.7 GET /livez 200")


def test_hostile_requests_stay_on_their_line(house: House, written: Written) -> None:
    """P11: line breaks and terminal sequences in the path, in labels, in the task's name; a token in the path."""
    house.api.access_log = True
    for path in (b"/%0d%0aERROR%20forged", b"/\x1b[2J\xe2\x80\xae", f"/{TOKEN}".encode()):
        house.wire().send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    house.ask("POST", "/v1/jobs", {"task": "a\r\nERROR forged", "labels": {"x": "\x1b]0;forged\x07"}})
    assert len(written.of("access")) == 4  # one of them was never a whole request
    for line in (*written.json, *written.human):
        assert line.isprintable(), line
        assert TOKEN not in line


def test_what_is_logged_for_a_request_has_its_ids(
    house: House, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down in the engine, without being passed along; the next request is not mixed up with it."""
    log = Logger()
    job = house.submit()["id"]
    get = house.engine.get

    def logged(job_id: bytes, tenant: str) -> Deferred[Job]:
        log.info("looking", action="looking")
        return get(job_id, tenant)

    monkeypatch.setattr(house.engine, "get", logged)
    house.ask("GET", f"/v1/jobs/{job}", headers={"X-Request-ID": "r-1"})
    house.ask("GET", f"/v1/jobs/{job}", headers={"X-Request-ID": "r-2"})
    log.info("outside", action="looking")
    assert [(line.get("request_id"), line.get("job_id")) for line in written.of("looking")] == [
        ("r-1", job), ("r-2", job), (None, None),
    ]  # fmt: skip


def test_late_reports_are_for_who_looks_for_them(house: House, written: Written) -> None:
    """An item of an attempt that is no longer ours: counted, and one line at level debug with row and epoch."""
    job = house.submit()
    start = house.worker.started.pop()
    house.worker.succeed(start)
    house.worker.items(start, 1)
    house.worker.succeed(start)
    lines = written.of("late_refused")
    assert [(line["level"], line["fields"]["what"], line["fields"]["epoch"]) for line in lines] == [
        ("debug", "items", 1), ("debug", "result", 1),
    ]  # fmt: skip
    assert job["id"]
    assert house.engine.counters["refused", "items"] == 1
