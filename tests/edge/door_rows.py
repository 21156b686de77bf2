"""Rows about who asks, for what, from where."""

from __future__ import annotations

from tests.edge.cases import (
    _EVERY_METHOD,
    MARKER,
    UNKNOWN_ID,
    Case,
    get,
    wrong,
)
from tests.edge.talk import AUTH

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
