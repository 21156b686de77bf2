"""Share tickets: whoever has one follows one job, for a while, and does nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from jobsvc.http.tickets import TICKET_MAX_CHARS, Ticket, Tickets
from tests.http.house import House
from tests.http.keys import key
from tests.http.wire import Reply


@implementer(ILogObserver)
class Heard:
    """All that is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(repr(event))


def shared(house: House, job_id: str, **fields: Any) -> dict[str, Any]:
    """A ticket for the job."""
    reply = house.ask("POST", f"/v1/jobs/{job_id}/share", fields or None)
    assert reply.status == 201, reply
    ticket: dict[str, Any] = reply.json()
    return ticket


def bare(house: House, method: str, target: str, **headers: str) -> Reply:
    """A request as a browser's EventSource makes it: without a token. A stream is left after what came at once."""
    wire = house.wire()
    wire.request(method, target, headers={k.replace("_", "-"): v for k, v in headers.items()}, token=None)
    [reply] = wire.replies()
    if not reply.whole:
        wire.leave()
    return reply


def test_a_ticket_opens_its_job_and_its_streams(house: House) -> None:
    """By GET, with the other parameters of the route; the url in the reply is that of the events."""
    job = house.done("echo", b"[1]")
    ticket = shared(house, job["id"])
    assert ticket["url"] == f"/v1/jobs/{job['id']}/events?ticket={ticket['ticket']}"
    events = bare(house, "GET", ticket["url"], Accept="text/event-stream")
    assert (events.status, b"event: end" in events.body) == (200, True)
    base, text = f"/v1/jobs/{job['id']}", ticket["ticket"]
    assert bare(house, "GET", f"{base}?ticket={text}").json()["result"] == [1]
    assert bare(house, "GET", f"{base}/result?ticket={text}").body == b"[1]"
    assert bare(house, "GET", f"{base}/events?kinds=end&ticket={text}&from=2").status == 200
    assert bare(house, "GET", f"{base}/streams/out?ticket={text}&bare=1").status == 200
    assert bare(house, "HEAD", f"{base}?ticket={text}").status == 200


def test_a_ticket_opens_nothing_else(house: House) -> None:
    """403 on every other route and method, 404 for another job, whatever the token behind it may do."""
    job, other = house.done("echo"), house.done("echo")
    text = shared(house, job["id"])["ticket"]
    shared_routes = {route.name for route in house.api.routes if route.shared}
    assert shared_routes == {"jobs.get", "jobs.result", "jobs.events", "jobs.stream"}
    for route in house.api.routes:
        path = route.path.format(job_id=job["id"], task="echo", name="out", token_id="first")
        reply = bare(house, route.method, f"{path}?ticket={text}")
        assert (reply.status == 200) is route.shared, route.name
        if not route.shared:
            assert (reply.status, reply.json()["code"]) == (403, "forbidden"), route.name
        elif other["id"]:
            elsewhere = route.path.format(job_id=other["id"], name="out")
            assert bare(house, "GET", f"{elsewhere}?ticket={text}").status == 404
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert bare(house, method, f"/v1/jobs/{job['id']}?ticket={text}").status in (403, 405)
    assert house.ask("GET", f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_a_ticket_is_no_token(house: House) -> None:
    """Not in the header, and not beside one; not twice, not under another name."""
    job = house.done("echo")
    text, base = shared(house, job["id"])["ticket"], f"/v1/jobs/{job['id']}"
    assert bare(house, "GET", base, Authorization=f"Bearer {text}").status == 401
    both = house.ask("GET", f"{base}?ticket={text}")
    assert (both.status, both.json()["code"]) == (400, "bad_query")
    assert bare(house, "GET", f"{base}?ticket={text}&ticket={text}").status == 400
    wrong = bare(house, "GET", f"{base}?ticket=x{text}")
    assert (wrong.status, wrong.json()["detail"].partition(";")[0]) == (401, "This ticket is not valid here")
    cancel = bare(house, "POST", f"{base}/cancel?ticket={text}")
    assert (cancel.status, "ticket" in cancel.json()["detail"]) == (403, True)
    for query in (f"token={text}", f"Ticket={text}", f"%74icket={text}", f"xticket={text}"):
        assert bare(house, "GET", f"{base}?{query}").status in (400, 401)


@pytest.mark.parametrize("ttl_s", [0, -1, 3601, "10", None])
def test_a_ticket_lives_for_an_hour_at_most(house: House, ttl_s: Any) -> None:
    job = house.done("echo")
    assert house.ask("POST", f"/v1/jobs/{job['id']}/share", {"ttl_s": ttl_s}).status == 422


def test_a_ticket_ends_with_its_time_and_with_its_token(house: House) -> None:
    """401 from then on: also when the token that made it is revoked, or was replaced."""
    job = house.done("echo")
    reader = key(house, "read")
    lasting = shared(house, job["id"], ttl_s=3600)["ticket"]
    reply = reader.ask("POST", f"/v1/jobs/{job['id']}/share", {"ttl_s": 60})
    text, target = reply.json()["ticket"], f"/v1/jobs/{job['id']}"
    house.after(59)
    assert bare(house, "GET", f"{target}?ticket={text}").status == 200
    house.after(1)
    gone = bare(house, "GET", f"{target}?ticket={text}")
    assert (gone.status, gone.json()["detail"]) == (401, "This ticket has expired.")
    again = reader.ask("POST", f"/v1/jobs/{job['id']}/share").json()["ticket"]
    assert bare(house, "GET", f"{target}?ticket={again}").status == 200
    house.ask("POST", f"/v1/tokens/{reader.id}/rotate")
    assert bare(house, "GET", f"{target}?ticket={again}").status == 401
    assert bare(house, "GET", f"{target}?ticket={lasting}").status == 200


def test_who_may_not_see_a_job_cannot_share_it(house: House) -> None:
    """404 as for any other look at it; and reading is needed."""
    job = house.done("echo")
    for who in (key(house, "read", tenant="acme"), key(house, "read", tasks=["add"])):
        assert who.code("POST", f"/v1/jobs/{job['id']}/share") == (404, "not_found")
    assert key(house, "submit").code("POST", f"/v1/jobs/{job['id']}/share") == (403, "forbidden")


def test_a_page_of_another_site_gets_nothing_with_it(house: House) -> None:
    """P05: its EventSource sends an Origin, and no reply allows it to read."""
    job = house.done("echo")
    url = shared(house, job["id"])["url"]
    refused = bare(house, "GET", url, Origin="https://evil.example")
    assert (refused.status, refused.json()["code"]) == (403, "cross_site")
    allowed = bare(house, "GET", url, Host="localhost:8787", Origin="http://localhost:8787")
    assert allowed.status == 200
    assert not any(name.startswith("access-control") for name in (*refused.headers, *allowed.headers))


def test_the_ticket_is_taken_out_of_the_address(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looks at the request later, a log above all, does not see it; other parameters stay."""
    job = house.done("echo")
    text = shared(house, job["id"])["ticket"]
    seen: list[bytes] = []
    monkeypatch.setattr(house.site, "log", lambda request: seen.extend((request.uri, request.query)))
    hear = Heard()
    globalLogPublisher.addObserver(hear)
    try:
        bare(house, "GET", f"/v1/jobs/{job['id']}?wait=1&ticket={text}")
        bare(house, "GET", f"/v1/jobs/{job['id']}?ticket={text}x")
    finally:
        globalLogPublisher.removeObserver(hear)
    base = f"/v1/jobs/{job['id']}".encode()
    assert seen == [base + b"?wait=1", b"wait=1", base, b""]
    assert not any(text in line for line in hear.lines)


def test_only_what_was_signed_here_is_read() -> None:
    """Any changed letter, another key, another start: nothing."""
    tickets = Tickets(lambda count: bytes(range(count)))
    text = tickets.write(Ticket(bytes(16), 1_795_000_000_000_000, "abc123"))
    assert tickets.read(text.encode()) == Ticket(bytes(16), 1_795_000_000_000_000, "abc123")
    assert text.replace("-", "").replace("_", "").isalnum()
    for place in range(len(text) - 1):  # the last letter has bits to spare
        other = "A" if text[place] != "A" else "B"
        assert tickets.read((text[:place] + other + text[place + 1 :]).encode()) is None
    assert tickets.read(f"{text[:9]}!{text[9:]}".encode()) is None
    assert Tickets(bytes).read(text.encode()) is None
    for garbage in (b"", b"x", b"\xff", b"=" * 9, b"A" * 43, b"A" * 44, b"A" * (TICKET_MAX_CHARS + 1)):
        assert tickets.read(garbage) is None
