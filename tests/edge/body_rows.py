"""Rows about bodies: JSON that is none, that is too much, or of the wrong shape."""

from __future__ import annotations

import gzip

import msgspec

from tests.edge.cases import (
    GOOD,
    JSON,
    UNKNOWN_ID,
    Case,
    args,
    bodies,
    get,
    post,
    submit,
    wrong,
)

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
