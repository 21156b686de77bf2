"""A grammar fuzzer for the framing level: heads and bodies, sound and unsound, pipelined, cut anywhere.

In a common run it tries the same few hundred conversations each time. To run it for long, with another seed each time
or with a given one:

    JOBSVC_FUZZ_EXAMPLES=100000 .venv/bin/python -m pytest tests/edge/test_framing_fuzz.py --timeout 0

(`--hypothesis-seed N` for the given one).
"""  # fmt: skip

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.edge.cases import GOOD, UNKNOWN_ID
from tests.edge.talk import AUTH, TRANSPORTS, Front, Transport

pytestmark = pytest.mark.filterwarnings(
    "ignore:Passing pyOpenSSL:DeprecationWarning"
)  # Twisted's own TLS code does

EXAMPLES = os.environ.get("JOBSVC_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(EXAMPLES or 200),
    derandomize=EXAMPLES is None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

RAW = b"<zq9&>"
"""Markup that stands all over the input, and in no reply as it is."""
ENDS_WITHIN = 120
"""Steps of ten seconds in which every connection has come to its end: the longest wait of a request is 300 s."""
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+")
_FIELD = re.compile(rb"[A-Za-z-]+: [\x20-\x7e]*")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
_SERVER_ERRORS = (503, 507)


def mostly(usual: Sequence[bytes], odd: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the usual ones, three times of four."""
    return st.one_of(*[st.sampled_from(usual)] * 3, st.sampled_from(odd))


junk = st.binary(max_size=12).map(lambda raw: raw + RAW)
methods = mostly(
    [b"GET", b"POST", b"POST", b"DELETE"],
    [
        b"get",
        b"PUT",
        b"OPTIONS",
        b"TRACE",
        b"CONNECT",
        b"BREW",
        b"G(T",
        b"",
        b"P\xd6ST",
        b"A" * 5000,
        b" GET",
    ],
)
targets = st.one_of(
    mostly(
        [
            b"/v1/info",
            b"/v1/jobs",
            b"/livez",
            b"/v1/tasks/echo/call",
            b"/v1/jobs/bulk",
            b"/v1/jobs/" + UNKNOWN_ID,
        ],
        [
            b"*",
            b"",
            b"/",
            b"//",
            b"/" + b"a" * 17_000,
            b"/v1/jobs?limit=1",
            b"/v1/jobs?" + RAW,
            b"/v1/jobs?token=" + RAW,
            b"/v1/jobs/bulk?live=1",
            b"/v1/jobs/bulk?atomic=1&follow=out",
            b"/v1/tasks/%3Czq9",
            b"/%00",
            b"/%ff",
            b"/%2e%2e/",
            b"http://localhost/v1/info",
            b"http://evil.example/",
            b"localhost:80",
            b"/v1/jobs/" + UNKNOWN_ID + b"/events",
            b"/v1/jobs/" + UNKNOWN_ID + b"/result?wait=1",
        ],
    ),
    junk.map(lambda raw: b"/" + raw),
)
versions = mostly(
    [b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"", b"HTTP/1.1 x"]
)
ends = mostly([b"\r\n"] * 9, [b"\n", b"\r", b"\r\r\n", b"\n\r", b""])
spaces = mostly([b" "] * 9, [b"  ", b"\t", b"", b"\x0b"])
lengths = mostly(
    [b"0", b"15", b"16", b"5"],
    [b"-1", b"+5", b"5, 5", b"0x5", b"", b"999999999999", b"9" * 5000, b"5 ", b"00015", b"1_5"],
)
codings = mostly([b"chunked"], [b"identity", b"gzip, chunked", b"Chunked", b"xchunked", b"", b"chunked\x0b"])
fields = st.one_of(
    *[st.sampled_from([b"Host: localhost", AUTH[:-2], b"Content-Type: application/json"])] * 4,
    lengths.map(lambda value: b"Content-Length: " + value),
    codings.map(lambda value: b"Transfer-Encoding: " + value),
    st.sampled_from(
        [
            b"Host: evil.example",
            b"Host:",
            b"Authorization: Bearer " + RAW,
            b"Connection: close",
            b"Connection: keep-alive, x",
            b"Expect: 100-continue",
            b"Expect: " + RAW,
            b"Accept: image/png",
            b"Accept: text/event-stream, application/json;q=0",
            b"Accept: ;;,,q=0;/",
            b"Content-Type: text/plain",
            b"Content-Type: application/x-ndjson",
            b"Content-Encoding: gzip",
            b"Origin: null",
            b"Origin: http://localhost",
            b"Sec-Fetch-Site: cross-site",
            b"Idempotency-Key: \xff",
            b"Prefer: wait=1",
            b"Prefer: wait=" + b"9" * 400,
            b"Last-Event-ID: x",
            b"If-None-Match: " + RAW,
            b"X-Request-ID: " + RAW,
            b"X-Forwarded-For: " + RAW,
            b"Upgrade: websocket",
            b"Cookie: " + RAW * 20,
            b" folded",
            b"\tfolded",
            b"no colon",
            b": no name",
            b"X : 1",
            b"X: a\rb",
            b"X: a\nb",
            b"X: a\0b",
            b"X: " + b"y" * 17_000,
        ]
    ),
    junk,
)
sizes = mostly(
    [b"f", b"0f", b"5"], [b"", b"+5", b"-5", b"0x5", b"g", b"ffffffffffffffffff", b"5 ", b"5;x=\0", b"0"]
)
payloads = st.one_of(
    st.sampled_from(
        [
            b"",
            GOOD,
            GOOD + b"\n" + GOOD,
            b'{"task":"%b"}' % RAW,
            b'{"%b":1}' % RAW,
            b'{"task":"echo","task":"add"}',
            b"[" * 300,
            b"\xff\xfe",
            b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ]
    ),
    junk,
)
chunks = st.tuples(sizes, ends, payloads, ends).map(b"".join)
chunked_bodies = st.tuples(
    st.lists(chunks, max_size=3).map(b"".join),
    mostly([b"0\r\n\r\n"], [b"0\r\n", b"", b"0\r\nX: y\r\n\r\n", b"0\n\n", b"0\r\nX\r\n" * 3]),
).map(b"".join)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, more or less."""
    line = b"".join((draw(methods), draw(spaces), draw(targets), draw(spaces), draw(versions), draw(ends)))
    lines = b"".join(field + draw(ends) for field in draw(st.lists(fields, max_size=7)))
    return line + lines + draw(ends) + draw(st.one_of(payloads, chunked_bodies))


@st.composite
def sound(draw: st.DrawFn) -> bytes:
    """A request without a fault, which must be answered wherever it is cut."""
    body = draw(st.sampled_from([GOOD, b'{"task":"add","args":{"n":1}}']))
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + AUTH + b"Content-Type: application/json\r\n"
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cut = draw(st.integers(1, len(body) - 1))
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:])]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


conversations = st.lists(st.one_of(requests(), sound(), st.binary(max_size=40)), min_size=1, max_size=4).map(
    b"".join
)
cuts = st.lists(st.floats(0, 1), max_size=4)
leavings = st.sampled_from(["stays", "stays", "half-closes", "aborts"])
transports = st.sampled_from(("tcp", *TRANSPORTS))


def pieces(data: bytes, at: Sequence[float]) -> Iterator[bytes]:
    """`data`, cut there."""
    places = sorted({int(len(data) * place) for place in at} | {0, len(data)})
    for start, end in pairwise(places):
        yield data[start:end]


def statuses(got: bytes, *, ended: bool) -> list[int]:
    """The replies in `got`, each of them sound HTTP; the last may be cut where the connection was."""
    found: list[int] = []
    while got:
        head, whole, got = got.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        assert whole, head
        assert status is not None, first
        assert all(_FIELD.fullmatch(line) for line in lines), lines
        names = [line.partition(b":")[0].lower() for line in lines]
        assert len(set(names)) == len(names), names
        number = int(status[1])
        if number == 100:
            continue
        found.append(number)
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        if b"content-length" in fields:
            length = int(fields[b"content-length"])
            assert len(got) >= length or ended, got
            got = got[length:]
        elif fields.get(b"transfer-encoding") == b"chunked":
            got = _after_chunks(got)
        elif number not in (204, 304):
            assert ended, fields
            got = b""
    return found


def _after_chunks(got: bytes) -> bytes:
    while got:
        size = _CHUNK.match(got)
        assert size is not None, got[:40]
        length = int(size[1], 16)
        got = got[size.end() + length :]
        assert not got or got.startswith(b"\r\n"), got[:40]
        got = got[2:]
        if not length:
            break
    return got


@implementer(ILogObserver)
class Failures:
    """What is logged as a failure."""

    def __init__(self) -> None:
        self.seen: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.seen.append(event)


async def converse(
    front: Front, transport: Transport, data: bytes, at: Sequence[float], leaving: str
) -> bytes:
    """Send it, and let time go by until the connection has come to its end. What came back."""
    talker = await front.connect(transport)
    sent = 0
    front.received = 0
    for piece in pieces(data, at):
        if talker.ended:
            break
        talker.send(piece)
        sent += len(piece)
        await front.taken(talker, sent)
    if talker.ended:
        pass
    elif leaving == "aborts":
        talker.transport.abortConnection()
    elif leaving == "half-closes" and transport != "tls":
        talker.transport.loseWriteConnection()
    for _ in range(ENDS_WITHIN):
        if talker.ended and not front.site.channels:
            break
        await front.turn()
        front.house.after(10)
    assert talker.ended, "this connection would last for ever"
    assert not front.site.channels
    assert not front.site.receiving
    assert not front.site.crowd.gives_way()
    return talker.got


@FUZZ
@given(data=conversations, at=cuts, leaving=leavings, transport=transports)
@pytest_twisted.ensureDeferred
async def test_whatever_comes_the_server_stays_sound(
    front: Front, data: bytes, at: list[float], leaving: str, transport: Transport
) -> None:
    """Every reply is sound HTTP, none is a server error or repeats raw input, nothing is logged as a failure, the
    connection ends, and the next client is served.
    """  # fmt: skip
    log = Failures()
    front.house.worker.auto = True
    globalLogPublisher.addObserver(log)
    try:
        got = await converse(front, transport, data, at, leaving)
        await front.alive(transport)
    finally:
        globalLogPublisher.removeObserver(log)
    assert not log.seen, log.seen[0]["log_failure"].getTraceback()
    assert RAW not in got
    for status in statuses(got, ended=True):
        assert status < 500 or status in _SERVER_ERRORS, got


@FUZZ
@given(requests=st.lists(sound(), min_size=1, max_size=5), at=cuts, transport=transports)
@pytest_twisted.ensureDeferred
async def test_sound_requests_are_answered_wherever_they_are_cut(
    front: Front, requests: list[bytes], at: list[float], transport: Transport
) -> None:
    """One reply for each, and no more: both sides count the same."""
    got = await converse(front, transport, b"".join(requests), at, "stays")
    assert statuses(got, ended=True) == [201] * len(requests)
