"""Rows of the catalogue that take more than one request, or time, over TCP, TLS and a Unix socket."""

from __future__ import annotations

import pytest
import pytest_twisted

from jobsvc.http import limits
from tests.edge.cases import CHUNKED, GOOD, HOST, JSON, UNKNOWN_ID, get, head, post
from tests.edge.talk import AUTH, TRANSPORTS, Front, Transport
from tests.http.wire import chunked

pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),  # Twisted's own TLS code does
    pytest.mark.parametrize("transport", TRANSPORTS),
]

INFO = get(b"/v1/info")


async def statuses(front: Front, transport: Transport, *requests: bytes) -> list[int]:
    """What these requests on one connection are answered, all sent at once."""
    talker = await front.ask(transport, b"".join(requests), len(requests))
    replies = talker.replies()
    await front.hang_up(talker)
    return [reply.status for reply in replies]


@pytest_twisted.ensureDeferred
async def test_b04_a_whole_uri_of_our_own_is_a_path(front: Front, transport: Transport) -> None:
    """RFC 9112, 3.2.2: servers take it, though only clients of proxies send it."""
    own = [
        get(b"http://localhost/v1/info"),
        get(b"HTTP://LOCALHOST:8787/v1/info"),
        get(b"http://localhost/v1/jobs?limit=1"),
        get(b"http://127.0.0.1/livez"),
    ]
    assert await statuses(front, transport, *own) == [200] * 4


@pytest_twisted.ensureDeferred
async def test_b17_trailers_are_read_and_mean_nothing(front: Front, transport: Transport) -> None:
    """Not even those that name a length: the next request begins where the chunks say."""
    trailed = head(
        CHUNKED, body=b"f\r\n" + GOOD + b"\r\n0\r\nContent-Length: 5\r\nHost: evil.example\r\nX: y\r\n\r\n"
    )
    extended = head(CHUNKED, body=b"00000f;name=value\r\n" + GOOD + b"\r\n0\r\n\r\n")
    assert await statuses(front, transport, trailed, extended, INFO) == [201, 201, 200]


@pytest_twisted.ensureDeferred
async def test_b20_http_1_0_gets_one_reply_and_a_close(front: Front, transport: Transport) -> None:
    """Whatever it asks of the connection; balancers send no Host."""
    line = b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    talker = await front.ask(transport, line + line)
    assert [reply.status for reply in talker.replies()] == [200]
    assert await front.ends(talker)
    assert talker.got.count(b" 200 OK") == 1
    await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_b25_a_thousand_requests_at_once_are_answered_in_order(
    front: Front, transport: Transport
) -> None:
    """Each with its own id."""
    many = [get(b"/livez", b"X-Request-ID: n%d" % n) for n in range(1000)]
    talker = await front.ask(transport, b"".join(many), 1000)
    assert [reply.headers["x-request-id"] for reply in talker.replies()] == [f"n{n}" for n in range(1000)]
    await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_b25_what_follows_a_close_is_not_looked_at(front: Front, transport: Transport) -> None:
    """And the reply before it arrives; `close` among other words counts."""
    for close in (b"Connection: close", b"Connection: x, Close", b"connection: x\r\nConnection: close"):
        talker = await front.ask(transport, get(b"/livez", close) + post(GOOD) * 50)
        assert [reply.status for reply in talker.replies()] == [200]
        assert await front.ends(talker)
        assert b" 201 " not in talker.got
        await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_b26_a_body_is_called_for_once_all_is_well(front: Front, transport: Transport) -> None:
    """100 Continue before the body is there, then the reply; without a wish for it none."""
    talker = await front.connect(transport)
    talker.send(head(b"Expect: 100-continue", b"Content-Length: %d" % len(GOOD)))
    await talker.until(lambda: b"\r\n\r\n" in talker.got)
    assert talker.got == b"HTTP/1.1 100 Continue\r\n\r\n"
    talker.send(GOOD)
    assert [reply.status for reply in await talker.replied()] == [201]
    await front.hang_up(talker)
    old = head(
        b"Expect: 100-continue", b"Content-Length: %d" % len(GOOD), line=b"POST /v1/jobs HTTP/1.0", body=GOOD
    )
    talker = await front.ask(transport, old)
    assert talker.got.startswith(b"HTTP/1.1 201 ")
    await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_b48_a_short_body_without_a_token_costs_the_connection_nothing(
    front: Front, transport: Transport
) -> None:
    """It is read away, 401 is a normal reply; a long or endless one is not even read, and the refusal arrives."""
    bare = post(GOOD).replace(AUTH, b"")
    assert await statuses(front, transport, bare, INFO) == [401, 200]
    for more in (b"Content-Length: 1000000", CHUNKED):
        talker = await front.ask(transport, head(more).replace(AUTH, b"") + b"5\r\nhello" * 5000)
        assert [(reply.status, reply.headers["connection"]) for reply in talker.replies()] == [(401, "close")]
        assert await front.ends(talker)
        await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_b56_cancel_of_what_is_over_or_was_never(front: Front, transport: Transport) -> None:
    """Final: 409; unknown: 404 or 410; twice while it waits: the second finds it final."""
    waiting = front.house.submit("idle")
    final = front.house.done()
    path = b"/v1/jobs/%b/cancel"
    once = post(b"", target=path % waiting["id"].encode(), media=b"")
    over = post(b"{}", target=path % final["id"].encode())
    never = post(b"", target=path % UNKNOWN_ID)
    found = await statuses(front, transport, once, once, over, never)
    assert found[:3] == [200, 409, 409]
    assert found[3] in (404, 410)


@pytest_twisted.ensureDeferred
async def test_b57_a_result_is_never_a_failure(front: Front, transport: Transport) -> None:
    """Not yet: 202; failed: 424; removed: 404 or 410."""
    running = front.house.submit()
    start = front.house.worker.started.pop()
    failed = front.house.submit()
    front.house.worker.fail(front.house.worker.started.pop())
    gone = front.house.done()
    assert front.house.ask("DELETE", f"/v1/jobs/{gone['id']}").status == 204
    asked = [get(b"/v1/jobs/%b/result" % job["id"].encode()) for job in (running, failed, gone)]
    assert (await statuses(front, transport, *asked))[:2] == [202, 424]
    assert (await statuses(front, transport, *asked))[2] in (404, 410)
    front.house.worker.succeed(start)


@pytest_twisted.ensureDeferred
async def test_b58_last_event_id(front: Front, transport: Transport) -> None:
    """Garbage: 400; a number from nowhere: all there is; the last one of a done job: 204."""
    path = b"/v1/jobs/%b/events?follow=0" % front.house.done()["id"].encode()
    asked = [
        get(path, b"Last-Event-ID: " + value) for value in (b"x", b"-1", b"1e3", b"9" * 30, b"99999", b"3")
    ]
    assert await statuses(front, transport, *asked) == [400, 400, 400, 400, 200, 204]


@pytest_twisted.ensureDeferred
async def test_b59_a_page_of_our_own_may_ask(front: Front, transport: Transport) -> None:
    """Of the same host and port; a person at the browser too."""
    own = [
        post(GOOD, b"Origin: http://localhost", b"Sec-Fetch-Site: same-origin"),
        post(GOOD, b"Sec-Fetch-Site: none"),
        get(b"/v1/info", b"Sec-Fetch-Site: cross-site"),  # reading it is the browser's to forbid
    ]
    assert await statuses(front, transport, *own) == [201, 201, 200]


@pytest_twisted.ensureDeferred
async def test_b64_forwarded_headers_of_strangers_say_nothing(front: Front, transport: Transport) -> None:
    """Nothing of them is believed: not the host, not the scheme, not the client."""
    told = [b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil.example"]
    assert await statuses(front, transport, get(b"/v1/info", *told)) == [200]


@pytest_twisted.ensureDeferred
async def test_b66_a_stopping_daemon_takes_nothing(front: Front, transport: Transport) -> None:
    """503 with Retry-After, nothing stored; reads go on."""
    house = front.house
    before = house.ask("GET", "/v1/jobs?limit=1").json()["jobs"][:1]
    house.engine.stop_claiming()
    try:
        talker = await front.ask(transport, post(GOOD) + get(b"/v1/jobs?limit=1"), 2)
    finally:
        house.engine._dispatcher.open = (
            True  # a daemon that stops does not come back; this one has more tests
        )
    refused, listed = talker.replies()
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (503, "draining", "5")
    assert (listed.status, listed.json()["jobs"]) == (200, before)
    await front.hang_up(talker)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v1/info HTTP/1.1\r\nX",
        b"G",
        head(b"Content-Length: 1000", body=b"x"),
        head(CHUNKED, body=b"5\r\nhel"),
    ],
    ids=["head", "line", "body", "chunk"],
)
@pytest_twisted.ensureDeferred
async def test_b69_a_byte_now_and_then_buys_no_time(front: Front, transport: Transport, start: bytes) -> None:
    """408 at the absolute deadline, then the end."""
    talker = await front.connect(transport)
    talker.send(start)
    await front.settle(lambda: bool(front.site.receiving))
    [channel] = front.site.channels
    front.house.after(limits.HEAD_DEADLINE_S - 1)
    got = len(talker.got)
    seen = channel.site.receiving
    assert (got, len(seen)) == (0, 1)
    talker.send(b"x")
    await front.settle(lambda: bool(front.site.receiving))
    front.house.after(2)
    [reply] = await talker.replied()
    assert (reply.status, reply.json()["code"]) == (408, "request_timeout")
    assert await front.ends(talker)
    await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_broken_chunks_of_an_upload_end_it(front: Front, transport: Transport) -> None:
    """Its handler is at work already: 400 before the reply has begun, a cut behind its beginning."""
    line = b"%x\r\n%b\r\n" % (len(GOOD) + 1, GOOD + b"\n")
    for live in (b"", b"?live=1"):
        start = b"POST /v1/jobs/bulk%b HTTP/1.1\r\n%b%b%b\r\n\r\n" % (live, HOST, AUTH, CHUNKED)
        talker = await front.connect(transport)
        talker.send(start + line + b"nonsense\r\n" + line * 3)
        if live:
            await talker.until(lambda: False)
            assert talker.got.startswith(b"HTTP/1.1 200 ")
            assert b" 400 " not in talker.got
            assert not talker.got.endswith(b"0\r\n\r\n")
        else:
            assert [reply.status for reply in await talker.replied()] == [400]
            assert await front.ends(talker)
        await front.hang_up(talker)
    assert chunked(GOOD).endswith(b"0\r\n\r\n")
    await front.alive(transport)


@pytest_twisted.ensureDeferred
async def test_repeated_keys_of_long_bodies_and_of_lines_take_the_last(
    front: Front, transport: Transport
) -> None:
    """Said in the API's description: only single bodies up to 64 KiB are looked through."""
    long = b'{"task":"nope","task":"echo","args":{"x":"%b"}}' % (b"a" * limits.UNIQUE_KEYS_BYTES)
    lines = b'{"task":"nope","task":"echo"}\n' * 2
    bulk = post(lines, target=b"/v1/jobs/bulk", media=b"Content-Type: application/x-ndjson\r\n")
    talker = await front.ask(transport, post(long, media=JSON) + bulk, 2)
    one, many = talker.replies()
    assert (one.status, many.status) == (201, 200)
    assert [set(line) for line in many.lines()] == [{"line", "id"}] * 2
    await front.hang_up(talker)


@pytest_twisted.ensureDeferred
async def test_a_connection_too_many_is_told_where_that_is_cheap(front: Front, transport: Transport) -> None:
    """503 and the end; with TLS, where a word costs a handshake, only the end."""
    places, front.site.crowd.places = front.site.crowd.places, 0
    try:
        talker = await front.connect(transport)
        talker.send(INFO)
        replies = await talker.replied()
    finally:
        front.site.crowd.places = places
    assert [reply.status for reply in replies] == ([] if transport == "tls" else [503])
    if transport == "tls":
        assert talker.ended
    await front.hang_up(talker)
    await front.settle(lambda: not front.site._refusals)
    await front.alive(transport)
