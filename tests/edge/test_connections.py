"""How many connections there may be, how long each of them, and what a slow reader costs."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from jobsvc.http import limits
from jobsvc.http.crowd import connections_allowed, counted_address
from tests.http.house import House
from tests.http.wire import TOKEN, Wire, parse_replies

STRANGER = "198.51.100.7"


def test_all_places_taken_by_those_that_have_proven_themselves(house: House) -> None:
    """One more is told 503 with a problem document, and its connection ends; room is made by those that leave."""
    house.site.crowd.places = 2
    here = [house.wire(), house.wire()]
    for wire in here:
        wire.request("GET", "/v1/info")
    late = house.wire()
    assert not late.welcome
    [reply] = parse_replies(late.sent, ended=True)
    assert (reply.status, reply.json()["code"], reply.headers["retry-after"]) == (503, "overloaded", "1")
    assert late.transport.half_closed
    late.send(b"GET /v1/info HTTP/1.1\r\n\r\n")  # thrown away: the reply must arrive
    house.after(limits.LINGER_S)
    late.drop()
    here[0].leave()
    assert house.wire().welcome
    assert house.site.crowd.refused == {"total": 1, "address": 0, "gave_way": 0}
    here[1].request("GET", "/metrics")
    assert b'\njobsvc_http_connections_refused_total{why="total"} 1.0\n' in here[1].sent


def test_the_oldest_that_has_not_proven_itself_gives_way(house: House) -> None:
    """A flood of connections that ask nothing keeps nobody out; who was answered with a token stays."""
    house.site.crowd.places = 3
    honest = house.wire()
    honest.request("GET", "/v1/info")
    first, second = house.wire(), house.wire()
    first.request("GET", "/livez", token=None)  # asks, and proves nothing
    late = house.wire()
    assert late.welcome
    first.drop()
    assert not second.transport.aborted
    assert not honest.transport.aborted
    late.request("GET", "/v1/info")
    honest.request("GET", "/v1/info")
    assert [reply.status for reply in late.replies()] == [200]
    assert [reply.status for reply in honest.replies()] == [200, 200]


def test_more_are_closed_than_are_told(house: House) -> None:
    """Telling costs a connection for two seconds each; a flood gets a close and one line in the log."""
    house.site.crowd.places = 1
    house.start("GET", "/v1/info")
    told = [house.wire() for _ in range(limits.REFUSALS_MAX)]
    assert all(b" 503 " in wire.sent for wire in told)
    more = house.wire()
    assert (more.sent, more.transport.aborted) == (b"", True)
    for wire in told:
        wire.leave()
    assert b" 503 " in house.wire().sent
    house.after(limits.LINGER_S)


def test_one_address_has_so_many_that_have_proven_nothing(house: House) -> None:
    """A request with a good token takes a connection out of the count; another address has its own."""
    wires = [Wire(house.site, STRANGER) for _ in range(limits.UNPROVEN_PER_ADDRESS_MAX)]
    assert all(wire.welcome for wire in wires)
    assert not Wire(house.site, STRANGER).welcome
    assert Wire(house.site, "198.51.100.8").welcome
    wires[0].request("GET", "/livez", token=None)
    wires[1].request("GET", "/v1/info", token="jobsvc_x.wrong")
    assert not Wire(house.site, STRANGER).welcome
    wires[2].request("GET", "/v1/info")
    assert Wire(house.site, STRANGER).welcome
    assert not Wire(house.site, STRANGER).welcome
    wires[3].leave()
    assert Wire(house.site, STRANGER).welcome
    house.after(limits.LINGER_S)


def test_a_token_proves_something_only_with_the_whole_request(house: House) -> None:
    """Half a body keeps its place in the count; a streamed upload is known by its head."""
    head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    wire = Wire(house.site, STRANGER)
    json = "Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    wire.send(f"POST /v1/jobs HTTP/1.1\r\n{head}{json}".encode() + b'{"task":"ec')
    assert house.site.crowd.gives_way() is wire.channel
    wire.send(b'ho"}')
    assert wire.reply().status == 201
    assert house.site.crowd.gives_way() is None
    upload = Wire(house.site, STRANGER)
    upload.send(f"POST /v1/jobs/bulk HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    assert house.site.crowd.gives_way() is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_not_counted_by_address(house: House, peer: str) -> None:
    """The programs of this machine, and a proxy on it, are one address."""
    wires = [Wire(house.site, peer) for _ in range(limits.UNPROVEN_PER_ADDRESS_MAX + 5)]
    assert all(wire.welcome for wire in wires)


def test_behind_a_proxy_nobody_is_counted_by_address_and_its_last_hop_counts(house: House) -> None:
    """The proxy is the only peer; who is behind it, it says itself, last in X-Forwarded-For."""
    seen: list[str] = []
    handle = house.api.handle

    def note(request: Any) -> None:
        seen.append(request.client_address)
        handle(request)

    house.api.handle = note  # type: ignore[method-assign]
    forwarded = {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}
    Wire(house.site, STRANGER).request("GET", "/v1/info", headers=forwarded)
    house.site.behind_proxy = True
    Wire(house.site, STRANGER).request("GET", "/v1/info", headers=forwarded)
    Wire(house.site, STRANGER).request("GET", "/v1/info", headers={"X-Forwarded-For": "2001:db8::1"})
    Wire(house.site, STRANGER).request("GET", "/v1/info", headers={"X-Forwarded-For": "<script>"})
    Wire(house.site, STRANGER).request("GET", "/v1/info", headers={"X-Forwarded-For": "fe80::1%<script>"})
    Wire(house.site, STRANGER).request("GET", "/v1/info")
    assert seen == [STRANGER, "192.0.2.1", "2001:db8::1", STRANGER, "fe80::1", STRANGER]
    assert all(Wire(house.site, STRANGER).welcome for _ in range(limits.UNPROVEN_PER_ADDRESS_MAX + 5))


def test_addresses_are_counted_by_who_can_have_them() -> None:
    """IPv6 by subscriber; IPv4 in the dress of IPv6 as what it is."""

    class Address:
        def __init__(self, host: str) -> None:
            self.host = host

    def name(host: str) -> str | None:
        return counted_address(Address(host))  # type: ignore[arg-type]

    assert name("198.51.100.7") == name("::ffff:198.51.100.7") == "198.51.100.7"
    assert name("2001:db8::1") == name("2001:db8::ffff:1") != name("2001:db8:0:1::1")
    assert name("/run/jobsvc.sock") is None
    assert counted_address(None) is None


def test_connections_are_at_most_what_there_are_open_files_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is for workers, database and logs."""
    for soft, allowed in ((1024, 819), (10**6, 20_000), (resource.RLIM_INFINITY, 20_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections_allowed() == allowed


def test_a_connection_serves_so_many_requests(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last reply says so, and the connection ends."""
    monkeypatch.setattr("jobsvc.http.channel.REQUESTS_PER_CONNECTION", 3)
    wire = house.wire()
    for _ in range(3):
        wire.request("GET", "/livez")
    assert [reply.headers.get("connection") for reply in wire.replies()] == [None, None, "close"]
    assert wire.transport.disconnecting


def test_a_large_reply_waits_for_its_reader_in_slices(house: House) -> None:
    """What lies in the connection is a slice or two, not the whole; it comes whole and once."""
    big = b'"' + b"a" * 2_000_000 + b'"'
    job = house.done(result=big)
    wire = house.wire()
    written = wire.transport.write
    held = 0

    def slow(data: bytes) -> None:
        nonlocal held
        written(data)
        held += len(data)
        if held > 65_536:  # as a socket does that has taken its fill
            wire.channel.pauseProducing()

    wire.transport.write = slow  # type: ignore[method-assign]
    wire.request("GET", f"/v1/jobs/{job['id']}/result")
    rounds = 0
    while not wire.replies()[0].whole:
        assert held <= 4 * limits.WRITE_SLICE_BYTES
        held = 0
        rounds += 1
        wire.channel.resumeProducing()
    assert wire.reply().body == big
    assert rounds > 10
    wire.request("GET", "/livez")
    assert [reply.status for reply in wire.replies()] == [200, 200]


def test_a_reader_of_a_large_reply_that_stops_is_cut_off(house: House) -> None:
    """After the stall limit; nothing of the reply is kept."""
    job = house.done(result=b'"' + b"a" * 2_000_000 + b'"')
    wire = _stuck(house, job["id"])
    assert len(wire.sent) < 2 * limits.WRITE_SLICE_BYTES
    house.after(limits.WRITE_STALL_S + limits.SWEEP_ALL_S)
    wire.drop()
    assert wire.channel not in house.site.channels


def test_large_replies_that_wait_are_bounded_together(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there is room for is refused, with when to come back; room is made by those that leave."""
    monkeypatch.setattr("jobsvc.http.request.REPLIES_HELD_BYTES", 4_500_000)
    job = house.done(result=b'"' + b"a" * 2_000_000 + b'"')
    readers = [_stuck(house, job["id"]) for _ in range(2)]
    assert house.site.held_bytes == 4_000_004
    refused = house.ask("GET", f"/v1/jobs/{job['id']}/result")
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (
        503,
        "overloaded",
        "5",
    )
    assert house.ask("GET", "/v1/info").status == 200
    readers[0].leave()
    assert house.ask("GET", f"/v1/jobs/{job['id']}/result").status == 200
    assert house.site.held_bytes == 2_000_002


def _stuck(house: House, job_id: str) -> Wire:
    """A reader of this job's result that takes one slice of it."""
    wire = house.wire()
    written = wire.transport.write

    def stuck(data: bytes) -> None:
        written(data)
        wire.channel.pauseProducing()

    wire.transport.write = stuck  # type: ignore[method-assign]
    wire.request("GET", f"/v1/jobs/{job_id}/result")
    return wire


def test_a_stream_is_written_in_slices_too(house: House) -> None:
    """One read of the store may become more than a connection should hold."""
    job = house.submit()
    start = house.worker.started[0]
    house.worker.items(start, *["x" * 1000] * 200)
    house.worker.succeed(start)
    wire = house.wire()
    written = wire.transport.write
    held = 0

    def slow(data: bytes) -> None:
        nonlocal held
        written(data)
        held += len(data)
        if held > 65_536:
            wire.channel.pauseProducing()

    wire.transport.write = slow  # type: ignore[method-assign]
    wire.request("GET", f"/v1/jobs/{job['id']}/streams/out")
    while not wire.replies()[0].whole:
        assert held <= 4 * limits.WRITE_SLICE_BYTES
        held = 0
        wire.channel.resumeProducing()
    assert len(wire.reply().lines()) == 200
