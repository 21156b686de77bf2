"""What a row of the catalogue is made of: requests as bytes, and what they may be answered."""

from __future__ import annotations

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
