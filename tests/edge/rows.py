"""The catalogue of bad input as bytes: each row by its number, with what it may be answered.

A case is what a client sends on one connection, and the status (or one of several) of the only reply to it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from tests.edge.talk import AUTH

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
MARKER = b"zq9echo"
"""Stands in raw input that no reply may repeat."""
UNKNOWN_ID = b"0198c0de-0000-7000-8000-000000000000"


class Case(NamedTuple):
    """One input.

    Attributes:
        statuses: what its reply may be.
        codes: the same for the problem's code; empty = any.
        closes: the connection ends after the reply.
        reads_body: 100 Continue may be sent.
    """

    data: bytes
    statuses: tuple[int, ...]
    codes: tuple[str, ...] = ()
    closes: bool = False
    says_continue: bool = False


def get(target: bytes, *headers: bytes, method: bytes = b"GET", host: bytes = HOST) -> bytes:
    """A request without body, with the token."""
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (method, target, host, AUTH, _lines(headers))


def post(body: bytes, *headers: bytes, target: bytes = b"/v1/jobs", media: bytes = JSON) -> bytes:
    """A request with a body and its length."""
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\n%b%b%b%b%b\r\n%b" % (
        target,
        HOST,
        AUTH,
        media,
        _lines(headers),
        length,
        body,
    )


def head(*headers: bytes, line: bytes = b"POST /v1/jobs HTTP/1.1", body: bytes = b"") -> bytes:
    """A head of these header lines beside Host, token and type; and what follows it."""
    return b"%b\r\n%b%b%b%b\r\n%b" % (line, HOST, AUTH, JSON, _lines(headers), body)


def _lines(headers: Iterable[bytes]) -> bytes:
    return b"".join(header + b"\r\n" for header in headers)


def broken(inputs: Sequence[bytes], *statuses: int, code: str | None = None) -> list[Case]:
    """Inputs that are no sound HTTP: the connection ends."""
    return [Case(data, statuses, () if code is None else (code,), closes=True) for data in inputs]


def wrong(inputs: Sequence[bytes], *statuses: int, code: str | None = None) -> list[Case]:
    """Sound HTTP that is refused."""
    return [Case(data, statuses, () if code is None else (code,)) for data in inputs]


def bodies(texts: Sequence[bytes], *statuses: int, code: str | None = None) -> list[Case]:
    """Bodies of a submit."""
    return wrong([post(text) for text in texts], *statuses, code=code)


def submit(**fields: object) -> bytes:
    """The body of a submit."""
    return msgspec.json.encode({"task": "echo", **fields})


def args(text: bytes) -> bytes:
    """A submit whose argument x is this JSON text."""
    return b'{"task":"echo","args":{"x":%b}}' % text


GOOD = submit()
CHUNKED = b"Transfer-Encoding: chunked"
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"BREW")
_EVERY_METHOD = METHODS[2:]  # those whose refusal has a body
_TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + b"\x0a" * 200


def chunks(raw: bytes) -> bytes:
    """A chunked submit with these bytes for its body."""
    return head(CHUNKED, body=raw)


FRAMING: dict[str, list[Case]] = {
    "B01": broken([b"GET /v1/info HTTP/1.1\r\n" + AUTH + b"\r\n"], 400, code="bad_request"),
    "B02": broken(
        [
            get(b"/v1/info", b"Host: localhost"),
            get(b"/v1/info", b"host: evil.example"),
            get(b"/v1/info", b"Host: localhost", host=b"Host: evil.example\r\n"),
        ],
        400,
        code="bad_request",
    ),
    "B03": wrong(
        [
            get(b"/v1/jobs", method=method, host=b"Host: %b\r\n" % name)
            for method in _EVERY_METHOD
            for name in (b"evil.example", b"localhost.evil.example", b"", b"localhost:80:80", b"x@localhost")
        ],
        421,
        code="bad_host",
    ),
    "B04": wrong(
        [
            get(b"http://evil.example/v1/info"),
            get(b"HTTPS://evil.example:443/"),
            get(b"http://localhost@evil.example/v1/info"),
            get(b"http://evil.example?x"),
        ],
        421,
        code="bad_host",
    )
    + broken([get(b"http:///v1/info"), get(b"ftp://localhost/x"), get(b"v1/info"), get(b"*")], 400),
    "B05": broken(
        [
            head(b"Content-Length: " + length, body=b"x" * 5)
            for length in (b"+5", b"-1", b"", b"5, 5", b"0x5", b"5 5", b"5.0", b"5;", b"\xb2")
        ]
        + [
            head(b"Content-Length: 5", b"Content-Length: 5", body=b"x" * 5),
            head(b"Content-Length: 5", b"content-length: 6", body=b"x" * 6),
        ],
        400,
        code="bad_request",
    ),
    "B07": broken(
        [
            head(b"Content-Length: %d" % 10**18),
            head(b"Content-Length: " + b"9" * 5000),
            head(b"Content-Length: 999999999"),
        ],
        413,
        code="too_large",
    ),
    "B08": broken(
        [
            head(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
            head(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
        ],
        400,
        code="bad_request",
    ),
    "B10": broken(
        [
            head(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n")
            for coding in (
                b"gzip, chunked",
                b"xchunked",
                b"chunked, chunked",
                b"chunked\x0b",
                b"\x0cchunked",
                b"identity",
                b"",
                b"chunked;x=1",
                b'"chunked"',
            )
        ]
        + [
            head(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
            head(b"Transfer-Encoding: identity", CHUNKED, body=b"0\r\n\r\n"),
            head(CHUNKED, line=b"POST /v1/jobs HTTP/1.0", body=b"0\r\n\r\n"),
        ],
        400,
        code="bad_request",
    ),
    "B12": broken(
        [
            get(b"/v1/info", line)
            for line in (b"X-A : 1", b"no colon", b": no name", b"X A: 1", b"X\xe9: 1", b"X(: 1")
        ]
        + [get(b"/v1/info", b"no colon", b"X-B: 1")],
        400,
        code="bad_request",
    ),
    "B13": broken(
        [
            get(b"/v1/info", b"X-A: 1", b" folded"),
            get(b"/v1/info", b"X-A: 1", b"\tfolded"),
            b"GET /v1/info HTTP/1.1\r\n " + HOST + AUTH + b"\r\n",
            get(b"/v1/info", b"X-A: 1", b" "),
        ],
        400,
        code="bad_request",
    ),
    "B14": broken(
        [get(b"/v1/info", b"X-A: 1" + control + b"2") for control in (b"\r", b"\n", b"\0", b"\x0b", b"\x7f")]
        + [get(b"/v1/info", b"X-A\0: 1"), get(b"/v1/info\r"), get(b"/v1/info", b"X-A: 1\nContent-Length: 5")],
        400,
        code="bad_request",
    ),
    "B15": broken(
        [get(b"/v1/info").replace(b"\r\n", b"\n"), b"GET /v1/info HTTP/1.1\r\nHost: localhost\n\n"],
        400,
        code="bad_request",
    ),
    "B17": broken(
        [
            chunks(b"0\r\n" + b"X-Trailer: " + b"a" * 70_000),
            chunks(b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
            chunks(b"0\r\nX: y\n\r\n" + get(b"/v1/info")),
            chunks(b"0\r\nX: y\n\n" + get(b"/v1/info") + b"\r\n"),
            *(
                chunks(b"0\r\n" + trailer + b"\r\n\r\n")
                for trailer in (
                    b"no colon",
                    b": y",
                    b" X: y",
                    b"X : y",
                    b"X: y\r\n folded: z",
                    b"X: \0",
                    b"X: a\rb",
                    b"X\xff: y",
                )
            ),
            *(chunks(b"%b\r\nhello" % size) for size in (b"f" * 16, b"1" + b"0" * 16, b"f" * 900)),
            chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
            chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
            chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
            chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
            chunks(b"\r\nhello\r\n0\r\n\r\n"),
            chunks(b"5\r\nhello5\r\nhello\r\n0\r\n\r\n"),
            chunks(b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
            chunks(b"5;" + b"a" * 2000 + b"\r\nhello\r\n0\r\n\r\n"),
        ],
        400,
        code="bad_request",
    ),
    "B18": broken(
        [
            get(b"/v1/info", *[b"X: y"] * 501),
            get(b"/v1/info", *[b"X-%d: %b" % (n, b"y" * 1000) for n in range(20)]),
            get(b"/v1/info", b"X: " + b"y" * 17_000),
            get(b"/v1/info", b"X: " + b"y" * 16_350),
        ],
        431,
        code="headers_too_large",
    ),
    "B19": broken(
        [get(b"/" + b"a" * 20_000), get(b"/" + b"a" * 16_360), b"GET /" + b"a" * 20_000],
        414,
        code="uri_too_long",
    ),
    "B20": broken(
        [
            b"GET /v1/info\r\n",
            get(b"/v1/info").replace(b"HTTP/1.1", b"HTTP/1.9"),
            get(b"/v1/info").replace(b"HTTP/1.1", b"HTTP/3"),
            get(b"/v1/info").replace(b"HTTP/1.1", b"http/1.1"),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _TLS_HELLO,
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\0\0\0\0",
        ],
        400,
        code="bad_request",
    ),
    "B21": wrong(
        [
            *(
                get(b"/v1/info", method=method)
                for method in (b"get", b"BREW", b"Get", b"PROPFIND", b"M" * 300)
            ),
            get(b"/v1/info", method=b"TRACE"),
            get(b"*", method=b"OPTIONS"),
            get(b"/v1/info", method=b"OPTIONS"),
            get(b"localhost:80", method=b"CONNECT"),
            get(b"/v1/info", method=b"CONNECT"),
        ],
        405,
        code="method_not_allowed",
    )
    + wrong([get(b"*", method=b"OPTIONS", host=b"Host: evil.example\r\n")], 421),
    "B22": broken(
        [
            get(b"/v1/info\xe9"),
            get(b"/v1/\x80info"),
            get(b" /v1/info"),
            get(b"/v1/info "),
            get(b"/v1/in fo"),
            get(b"/v1/info\t"),
            b" " + get(b"/v1/info"),
            get(b"/v1/info", method=b"G\xe9T"),
            get(b"/v1/info", method=b"GE(T"),
            get(b"/v1/info", method=b""),
        ],
        400,
        code="bad_request",
    ),
    "B23": wrong(
        [
            get(path)
            for path in (
                b"/%00",
                b"/v1/jobs/%00",
                b"/v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
                b"/v1/jobs/../../etc/passwd",
                b"/v1/tasks/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
                b"/%252e%252e/x",
                b"/%c0%ae%c0%ae/x",
                b"/%ff",
                b"/%",
                b"/v1/tasks/%",
                b"/v1/info%2f..",
                b"/v1/info;x=1",
                b"/v1\\info",
                b"/v1/info#x",
                b"//v1/info",
                b"/v1//info",
                b"/file:///etc/passwd",
            )
        ],
        400,
        404,
    ),
    "B26": [
        Case(head(b"Expect: 100-continue", b"Content-Length: 2000000"), (413,), ("too_large",), closes=True),
        Case(
            head(b"Expect: 100-continue", b"Content-Length: 20").replace(AUTH, b""),
            (401,),
            ("unauthenticated",),
            closes=True,
        ),
        Case(
            head(b"Expect: 100-continue", CHUNKED, line=b"POST /nowhere HTTP/1.1"),
            (404,),
            ("not_found",),
            closes=True,
        ),
        Case(
            head(b"Expect: 100-continue", CHUNKED, line=b"PUT /v1/jobs HTTP/1.1"),
            (405,),
            ("method_not_allowed",),
            closes=True,
        ),
        Case(head(b"Expect: 200-ok", b"Content-Length: 20"), (417,), ("expectation_failed",), closes=True),
        Case(
            head(b"Expect: 100-continue, 100-continue", b"Content-Length: 20"),
            (417,),
            ("expectation_failed",),
            closes=True,
        ),
        Case(get(b"/v1/info", b"Expect: magic"), (417,), ("expectation_failed",)),
        Case(
            head(b"Expect: 100-Continue", b"Content-Length: %d" % len(GOOD), body=GOOD),
            (201,),
            says_continue=True,
        ),
    ],
}
"""What is wrong with the bytes."""

_DEEP = b"[" * 100_000 + b"]" * 100_000
_OBJECTS = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
_NAMES = (
    "nope",
    "os:system",
    "__import__",
    "os.system",
    "a" * 300,
    "ech\u043e",
    "",
    " echo",
    "echo\0",
    "../x",
)

BODIES: dict[str, list[Case]] = {
    "B28": wrong(
        [
            post(GOOD, media=media)
            for media in (
                b"",
                b"Content-Type: text/plain\r\n",
                b"Content-Type: application/x-www-form-urlencoded\r\n",
                b"Content-Type: multipart/form-data; boundary=x\r\n",
                b"Content-Type: application/json; charset=latin-1\r\n",
                b"Content-Type: application/jsonx\r\n",
                b"Content-Type: \r\n",
                JSON + b"Content-Type: text/plain\r\n",
            )
        ],
        415,
        code="media_type",
    ),
    "B29": wrong(
        [
            post(gzip.compress(b"0" * 100_000), b"Content-Encoding: gzip"),
            post(GOOD, b"Content-Encoding: br"),
            post(GOOD, b"Content-Encoding: identity, gzip"),
        ],
        415,
        code="media_type",
    ),
    "B30": wrong(
        [
            get(b"/v1/info", b"Accept: " + accept)
            for accept in (
                b"image/png",
                b"text/*",
                b"application/json;q=0",
                b"*/*;q=0",
                b"application/xml, text/html",
            )
        ]
        + [post(GOOD, b"Accept: text/html"), get(b"/metrics", b"Accept: application/json")],
        406,
        code="not_acceptable",
    ),
    "B31": bodies([b"", b"null", b"[]", b'"x"', b"5", b"true", b"{}", b" "], 400, 415, 422),
    "B32": bodies(
        [
            b"{",
            GOOD[:-1],
            GOOD + b" x",
            GOOD + GOOD,
            b"/* c */" + GOOD,
            b"{'task':'echo'}",
            b'{"task":"ec\x01ho"}',
            args(b'"\x01"'),
            args(b'"\n"'),
            b'{"task":"echo",}',
            b'{task:"echo"}',
            args(b"01"),
            args(b"+1"),
            args(b".5"),
            args(b'"\\x41"'),
            args(b"True"),
        ],
        400,
        code="bad_json",
    ),
    "B33": bodies(
        [_DEEP, _OBJECTS, args(_DEEP), args(_OBJECTS), args(b"[" * 65 + b"]" * 65)], 400, code="bad_json"
    ),
    "B34": bodies(
        [args(b"NaN"), args(b"Infinity"), args(b"-Infinity"), args(b"1e999"), args(b"-1e999")],
        400,
        code="bad_json",
    ),
    "B36": bodies([args(b"9" * 5000), args(b"-" + b"9" * 5000)], 400, code="bad_json")
    + bodies(
        [
            b'{"task":"echo","%b":%d}' % (field, value)
            for field in (b"priority", b"retries")
            for value in (2**63, -(2**63) - 1, 10**30)
        ],
        400,
        422,
    )
    + wrong(
        [get(b"/v1/jobs?limit=%d" % 2**63), get(b"/v1/jobs/%b/events?from=%d" % (UNKNOWN_ID, 2**64))], 400
    ),
    "B38": bodies(
        [
            args(b'"\\ud800"'),
            args(b'"\\udc00\\ud800"'),
            args(b'"\\u0000"'),
            args(b'"a\\\\\\u0000"'),
            args(b'{"\\u0000":1}'),
            b'{"task":"\\ud800"}',
            b'{"task":"\\u0000"}',
            b'{"task":"echo","labels":{"a":"\\u0000"}}',
        ],
        400,
        code="bad_json",
    ),
    "B39": bodies(
        [
            args(b'"\xff"'),
            args(b'"\xc0\xaf"'),
            args(b'"\xed\xa0\x80"'),
            args(b'"\xf4\x90\x80\x80"'),
            b'{"task":"\xff"}',
            b"\xef\xbb\xbf" + GOOD,
            GOOD.decode().encode("utf-16"),
            GOOD.decode().encode("utf-16-le"),
            GOOD.decode().encode("utf-32-be"),
        ],
        400,
        code="bad_json",
    ),
    "B40 repeated keys": bodies(
        [
            b'{"task":"echo","task":"add"}',
            b'{"task":"echo","args":{"x":1,"x":2}}',
            b'{"task":"echo","args":{"x":{"y":1, "y" :2}}}',
            b'{"task":"echo","args":{"x":[{"y":1},{"y":1,"z":2,"\\u0079":3}]}}',
        ],
        400,
        code="bad_json",
    )
    + wrong([post(b'{"x":1,"x":2}', target=b"/v1/tasks/echo/call")], 400, code="bad_json"),
    "B40 too many values": bodies([args(b"[" + b"0," * 100_100 + b"0]")], 400, code="bad_json"),
    "B41": bodies(
        [
            submit(colour=1),
            submit(priority="high"),
            submit(priority=None),
            submit(priority=True),
            submit(priority=3.0).replace(b"3}", b"3.0}"),
            submit(labels={"a": 1}),
            submit(timeouts={"run": "5"}),
            submit(timeouts={"x": 5}),
            b'{"task":null}',
            b'{"task":5}',
            submit(args=5),
        ],
        422,
    ),
    "B42": bodies([msgspec.json.encode({"task": name}) for name in _NAMES], 400, 422)
    + wrong([get(b"/v1/tasks/nope"), get(b"/v1/tasks/os.system"), get(b"/v1/tasks/" + b"a" * 300)], 404),
    "B43": bodies(
        [
            submit(timeouts={"run": 0}),
            submit(timeouts={"run": -1}),
            submit(timeouts={"run": 1e12}),
            submit(timeouts={"run": "1"}),
            submit(priority=101),
            submit(priority=-101),
            submit(retries=-1),
            submit(retries=10**9),
            submit(delay_s=-1),
            submit(run_at="yesterday"),
        ],
        422,
        code="invalid_field",
    ),
    "B45": bodies([submit(args={"x": "a" * 300_000})], 413, code="too_large")
    + wrong(
        [
            post(
                (GOOD + b"\n") * 10_001,
                target=b"/v1/jobs/bulk?atomic=1",
                media=b"Content-Type: application/x-ndjson\r\n",
            )
        ],
        413,
        code="too_large",
    ),
    "B47": wrong(
        [
            post(GOOD, b"Idempotency-Key: " + key)
            for key in (b"", b"a" * 300, b"\xff\xfe", b"a\r\nIdempotency-Key: b")
        ],
        400,
        422,
    ),
}
"""What is wrong with what they say."""

DOORS: dict[str, list[Case]] = {
    "B48": wrong(
        [
            get(b"/v1/info").replace(AUTH, line)
            for line in (
                b"",
                b"Authorization: \r\n",
                b"Authorization: Bearer\r\n",
                b"Authorization: Bearer %b\r\n" % MARKER,
                b"Authorization: Basic %b\r\n" % MARKER,
                b"Authorization: %b\r\n" % MARKER,
                AUTH * 2,
            )
        ],
        401,
        code="unauthenticated",
    )
    + wrong(
        [
            get(b"/v1/info?token=" + MARKER),
            get(b"/v1/info?access_token=" + MARKER),
            get(b"/v1/jobs?limit=1&token=" + MARKER).replace(AUTH, b""),
            get(b"/livez?token=" + MARKER),
        ],
        400,
        code="bad_query",
    ),
    "B51": wrong(
        [
            get(b"/v1/jobs/" + job_id)
            for job_id in (
                b"x",
                b"1",
                b"a" * 10_000,
                b"'%20OR%201=1--",
                b"%22;drop%20table%20jobs",
                b"%d9%a0%d9%a1",
                UNKNOWN_ID.upper(),
                UNKNOWN_ID.replace(b"-", b""),
                UNKNOWN_ID + b"%00",
            )
        ],
        400,
        404,
    ),
    "B53": wrong(
        [
            get(b"/v1/jobs?" + query)
            for query in (
                b"sort=id",
                b"state=asleep",
                b"order=id;drop",
                b"cursor=" + MARKER,
                b"limit=0",
                b"limit=-1",
                b"limit=1e3",
                b"since=1",
                b"colour=%25",
                b"=x",
                b"limit=1&limit=1",
                b"task=%ff",
                b"task=%00",
                b"label.=x",
                b"%6cimit",
                b"id=",
            )
        ],
        400,
        code="bad_query",
    ),
    "B58": wrong(
        [get(b"/v1/jobs/%b/events" % UNKNOWN_ID, b"Last-Event-ID: 5")],
        404,
        410,
    ),
    "B59": wrong(
        [
            get(b"/v1/jobs", header, method=method)
            for method in _EVERY_METHOD
            for header in (
                b"Origin: https://evil.example",
                b"Origin: null",
                b"Origin: http://localhost:3000",
                b"Origin: http://localhost\r\nOrigin: https://evil.example",
                b"Sec-Fetch-Site: cross-site",
                b"Sec-Fetch-Site: same-site",
                b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
            )
        ]
        + [get(b"/v1/jobs", b"Origin: https://evil.example"), get(b"/v1/jobs", b"Origin: null")],
        403,
        code="cross_site",
    ),
    "B60": wrong(
        [
            get(
                b"/v1/jobs",
                b"Origin: https://evil.example",
                b"Access-Control-Request-Method: POST",
                b"Access-Control-Request-Headers: authorization",
                method=b"OPTIONS",
            ).replace(AUTH, b"")
        ],
        403,
        code="cross_site",
    ),
    "B64": wrong(
        [
            get(b"/v1/info", b"X-Forwarded-Host: localhost", host=b"Host: evil.example\r\n"),
            get(b"/v1/info", b"Forwarded: host=localhost", host=b"Host: evil.example\r\n"),
        ],
        421,
        code="bad_host",
    ),
}
"""Who is not let in, and what is not found."""

ROWS = FRAMING | BODIES | DOORS
