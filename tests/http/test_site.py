"""The server below the API: caps, deadlines, early refusals, pipelining, slow and vanishing clients."""

from __future__ import annotations

import pytest

from jobsvc.http import limits
from tests.http.house import House
from tests.http.wire import TOKEN, Wire, chunked

HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


def post(wire: Wire, more: str, body: bytes = b"", target: str = "/v1/jobs") -> None:
    """The head of a POST with these headers, and what follows it."""
    wire.send(f"POST {target} HTTP/1.1\r\n{HEAD}{more}\r\n".encode() + body)


def code_of(wire: Wire) -> str:
    code: str = wire.reply().json()["code"]
    return code


def test_a_length_far_over_the_cap_is_refused_at_the_head(house: House) -> None:
    """413 at once; our side is closed, the rest discarded for a while, then the connection ends."""
    wire = house.wire()
    post(wire, f"Content-Length: {10**18}\r\n")
    assert wire.reply().status == 413
    assert wire.reply().headers["connection"] == "close"
    assert wire.transport.half_closed
    wire.send(b"x" * 100_000)
    assert not wire.transport.aborted
    house.after(limits.LINGER_S)
    wire.drop()
    assert code_of(wire) == "too_large"


def test_a_length_over_the_cap_is_read_away_and_the_connection_lives(house: House) -> None:
    """Soft: the body is discarded, 413 is a normal reply, the next request works."""
    wire = house.wire()
    size = house.site.body_max_bytes + 1
    post(wire, f"Content-Length: {size}\r\n", b"x" * size)
    assert code_of(wire) == "too_large"
    wire.request("GET", "/livez")
    assert [reply.status for reply in wire.replies()] == [413, 200]


def test_a_chunked_body_is_counted(house: House) -> None:
    """Over the cap: 413 at its end; far over it: at once, and nothing more is read."""
    wire = house.wire()
    piece = b"x" * 65_536
    post(
        wire,
        "Transfer-Encoding: chunked\r\n",
        chunked(*[piece] * (house.site.body_max_bytes // len(piece) + 1)),
    )
    assert code_of(wire) == "too_large"
    assert not wire.transport.half_closed
    endless = house.wire()
    post(endless, "Transfer-Encoding: chunked\r\n")
    for _ in range(house.site.body_hard_max_bytes // len(piece) + 1):
        endless.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    assert code_of(endless) == "too_large"
    assert endless.transport.half_closed
    house.after(limits.LINGER_S)
    endless.drop()


def test_expect_is_answered_only_for_what_is_not_refused(house: House) -> None:
    """100 Continue, then the reply; over the cap 413 and no 100."""
    wire = house.wire()
    body = b'{"task":"echo"}'
    post(wire, f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n")
    assert wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(body)
    assert wire.reply().status == 201
    large = house.wire()
    post(large, f"Expect: 100-continue\r\nContent-Length: {house.site.body_max_bytes + 1}\r\n")
    assert large.sent.startswith(b"HTTP/1.1 413 ")
    house.after(limits.LINGER_S)
    large.drop()


def test_bodies_never_touch_the_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock twisted.web opens a temporary file for chunked bodies and those over 100 kB."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile.TemporaryFile", forbidden)
    wire = house.wire()
    body = b'{"task":"echo","args":{"x":"' + b"a" * 200_000 + b'"}}'
    post(wire, "Transfer-Encoding: chunked\r\n", chunked(body[:1000], body[1000:]))
    assert wire.reply().status == 201


def test_forms_are_never_parsed(house: House) -> None:
    """Form parsing costs more than the whole request, and multipart is read without limit."""
    wire = house.wire()
    wire.request("POST", "/v1/jobs", b"task=echo", {"Content-Type": "application/x-www-form-urlencoded"})
    assert code_of(wire) == "media_type"
    assert house.site._parsePOSTFormSubmission is False


def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    """The second waits for the first, even when it could be answered before."""
    wire = house.wire()
    job = house.submit()
    wire.request("GET", f"/v1/jobs/{job['id']}?wait=30")
    wire.request("GET", "/livez")
    assert wire.sent == b""
    house.worker.succeed(house.worker.started[0])
    replies = wire.replies()
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[1].body == b"ok\n"


def test_every_reply_has_a_length_or_chunks_and_a_type(house: House) -> None:
    """Also the refusals; nothing is left to guess."""
    for method, target in (("GET", "/v1/info"), ("GET", "/nowhere"), ("PUT", "/v1/jobs"), ("GET", "/livez")):
        reply = house.ask(method, target)
        assert reply.headers["content-length"] == str(len(reply.body))
        assert reply.headers["content-type"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["server"] == "jobsvc"
        assert reply.headers["date"].endswith(" GMT")


def test_head_is_get_without_a_body(house: House) -> None:
    """The same headers, no byte more; a stream is not begun."""
    job = house.submit()
    for target in ("/v1/info", f"/v1/jobs/{job['id']}", f"/v1/jobs/{job['id']}/events"):
        wire = house.start("HEAD", target)
        assert wire.sent.startswith(b"HTTP/1.1 200 ")
        assert wire.sent.endswith(b"\r\n\r\n")


def test_a_request_id_is_echoed_or_made(house: House) -> None:
    """A harmless one is kept; a strange one is replaced; each request has one of its own."""
    assert house.ask("GET", "/livez", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    strange = house.ask("GET", "/livez", headers={"X-Request-ID": "a b\t<x>"}).headers["x-request-id"]
    other = house.ask("GET", "/livez").headers["x-request-id"]
    assert strange not in ("a b\t<x>", other)


def test_half_a_head_is_refused_at_the_deadline(house: House) -> None:
    """Each byte must not buy more time: 408, then the end."""
    wire = house.wire()
    wire.send(b"GET / HTTP/1.1\r\nHo")
    for _ in range(int(limits.HEAD_DEADLINE_S) - 1):
        house.after(1)
        wire.send(b"s")
    assert wire.sent == b""
    house.after(limits.SWEEP_S)
    assert (wire.reply().status, code_of(wire)) == (408, "request_timeout")
    house.after(limits.LINGER_S)
    wire.drop()


def test_a_body_gets_time_by_what_has_come_of_it(house: House) -> None:
    """A grace, then so many bytes a second; its length promises nothing."""
    wire = house.wire()
    post(wire, "Content-Length: 1000000\r\n", b"x")
    house.after(limits.BODY_GRACE_S - 1)
    wire.send(b"x" * limits.BODY_MIN_BYTES_PER_S * 20)
    house.after(20)
    assert wire.sent == b""
    house.after(1 + limits.SWEEP_S)
    assert (wire.reply().status, code_of(wire)) == (408, "request_timeout")
    house.after(limits.LINGER_S)
    wire.drop()


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(house: House) -> None:
    """The limit is for silence between requests, not for a request that takes its time."""
    idle = house.wire()
    idle.request("GET", "/livez")
    job = house.submit()
    busy = house.start("GET", f"/v1/jobs/{job['id']}?wait=300")
    house.after(limits.IDLE_S + limits.SWEEP_ALL_S)
    assert idle.transport.disconnecting
    assert not idle.transport.aborted
    assert not busy.transport.aborted
    house.worker.succeed(house.worker.started[0])
    assert busy.reply().json()["done"] is True


def test_no_connection_no_timer(house: House) -> None:
    """An idle daemon is not woken up by its server."""
    wire = house.wire()
    wire.leave()
    house.after(limits.SWEEP_ALL_S)
    assert [call for call in house.clock.getDelayedCalls() if "LoopingCall" in repr(call)] == []


def test_what_http_itself_refuses_closes_the_connection(house: House) -> None:
    """With a problem document, and a close that lets it arrive."""
    for raw in (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"nonsense\r\n\r\n"):
        wire = house.wire()
        wire.send(raw)
        assert (wire.reply().status, code_of(wire)) == (400, "bad_request")
        assert wire.transport.half_closed
        house.after(limits.LINGER_S)
        wire.drop()


def test_http_1_0_gets_its_reply_and_a_close(house: House) -> None:
    """Health checks of old balancers: no Host, no keep-alive, no chunks."""
    wire = house.wire()
    wire.send(b"GET /livez HTTP/1.0\r\n\r\n")
    assert wire.reply().status == 200
    assert wire.transport.disconnecting
    job = house.done()
    stream = house.wire()
    stream.send(f"GET /v1/jobs/{job['id']}/events HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert "transfer-encoding" not in stream.reply().headers
    assert b"event: end" in stream.reply().body
