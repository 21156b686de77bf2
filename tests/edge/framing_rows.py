"""Rows about framing: what is and what is not one sound request."""

from __future__ import annotations

from tests.edge.cases import (
    _EVERY_METHOD,
    _TLS_HELLO,
    CHUNKED,
    GOOD,
    HOST,
    Case,
    broken,
    chunks,
    get,
    head,
    wrong,
)
from tests.edge.talk import AUTH

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
