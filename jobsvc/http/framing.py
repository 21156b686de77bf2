"""F3: what a request must look like before it is one: its first line, its target, its header lines. Pure.

Stricter than twisted.web where two readers of the same bytes could disagree about them: what a proxy in front takes
for one request must be one request here. Sources: RFC 9112 sections 2.2, 3.2, 5.2, 6.1, 6.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jobsvc.http.limits import LENGTH_DIGITS_MAX
from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import HEADERS_MAX_BYTES

_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.[01]")
_OTHER_VERSION = re.compile(rb"[\x21-\x7e]+ [\x21-\x7e]+ HTTP/(?!1\.[01]$)[0-9]+(?:\.[0-9]+)?")
CONTROLS = bytes((*range(0x09), *range(0x0A, 0x20), 0x7F))
"""All but the tab, which may stand between words of a header."""
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^#]*)", re.IGNORECASE)
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
CHUNK_MAX_BYTES = 10**LENGTH_DIGITS_MAX
"""What one chunk may say it has: a proxy whose numbers have 64 bits must not read another one there."""
_STARTS = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r")
FOLDS = frozenset((b" ", b"\t"))
"""What a header line begins with that goes on an earlier one."""
_USUAL = [b"keep-alive"]
_TLS_HANDSHAKE = 0x16


class Target(NamedTuple):
    """What a request is for.

    `authority`: the server it names by itself, None when only the Host header does.
    """

    path: bytes
    query: bytes
    authority: bytes | None = None


def line_error(line: bytes) -> JobsvcError | None:
    """What is wrong with a request line, unless it is a method, a target and a version that is spoken here."""
    if _REQUEST_LINE.fullmatch(line) is not None:
        return None
    if _OTHER_VERSION.fullmatch(line) is not None:
        return bad_request("HTTP/1.1 and HTTP/1.0 are spoken here, no other version.")
    return bad_request(
        "The request line has to be a method, a target and HTTP/1.1, in ASCII, with one space between them."
    )


def field_error(line: bytes) -> JobsvcError | None:
    """What is wrong with a header line: it goes on an earlier one, or has control characters.

    Names and the colon are judged by twisted.web.
    """
    if line[:1] in FOLDS:
        return bad_request("A header line begins with white space: folded headers are not taken.")
    if line.translate(None, CONTROLS) != line:
        return bad_request("A header has control characters, or a line that does not end in CR LF.")
    return None


def is_field(line: bytes | bytearray) -> bool:
    """Whether a line of trailers is a name, a colon and a value, without control characters."""
    return _FIELD.fullmatch(line) is not None


def start_error(rest: bytes) -> JobsvcError | None:
    """Why what came of a request line can never become one."""
    if rest[0] == _TLS_HANDSHAKE:
        return bad_request("This port speaks HTTP without TLS: use http:// in place of https://.")
    return None if rest[0] in _STARTS else bad_request("This is not HTTP.")


LENGTHS = frozenset((b"Content-Length", b"Transfer-Encoding"))
"""Headers that say where a body ends, in twisted.web's spelling."""


def length_error(name: bytes, value: bytes, version: bytes) -> JobsvcError | None:
    """What is wrong with one of `LENGTHS`. That there are not two of them is seen to by twisted.web."""
    if name == b"Content-Length":
        if not value.isdigit():
            return bad_request("Content-Length has to be one decimal number.")
        if len(value) > LENGTH_DIGITS_MAX:
            return JobsvcError("too_large", f"Content-Length has more than {LENGTH_DIGITS_MAX} digits.")
    elif value.lower() != b"chunked":
        return bad_request("Transfer-Encoding: only chunked is taken.")
    elif version != b"HTTP/1.1":
        return bad_request("HTTP/1.0 has no Transfer-Encoding.")
    return None


def other_target(method: bytes, uri: bytes) -> Target:
    """The target of a request line that is no path: `*`, a whole URI, or a CONNECT's authority. Raises bad_request."""
    if uri == b"*" or method == b"CONNECT":
        return Target(uri, b"")
    found = _ABSOLUTE.fullmatch(uri)
    if found is None:
        raise bad_request("The target has to be a path that begins with a slash.")
    path, _, query = found[2].partition(b"?")
    return Target(path or b"/", query, found[1])


def check_expectations(expectations: Sequence[bytes]) -> None:
    """Raise `expectation_failed` for anything but 100-continue."""
    if [each.lower() for each in expectations] != [b"100-continue"]:
        raise JobsvcError("expectation_failed", "Expect: only 100-continue can be met.")


def closes(connection: Sequence[bytes]) -> bool:
    """Whether the Connection headers ask for an end after the reply."""
    if connection == _USUAL:
        return False
    return any(word.strip().lower() == b"close" for line in connection for word in line.split(b","))


def bad_request(detail: str) -> JobsvcError:
    """The bytes are no sound request; whatever follows them cannot be trusted either."""
    return JobsvcError("bad_request", detail)


def uri_too_long() -> JobsvcError:
    """The request line alone is over the limit."""
    return JobsvcError(
        "uri_too_long", f"Request line and headers together may have {HEADERS_MAX_BYTES} bytes."
    )


def headers_too_large(detail: str) -> JobsvcError:
    """Too many headers, or too long ones."""
    return JobsvcError("headers_too_large", detail)
