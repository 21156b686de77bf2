"""F3: what the request line alone refuses, whoever asks: secrets in URLs, methods nobody has, paths that are none."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from jobsvc.http.framing import bad_request
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError

KNOWN_METHODS = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT")
)
"""RFC 9110 and RFC 5789; in this spelling only: methods have case."""
READING = frozenset((b"GET", b"HEAD"))
"""Those that change nothing."""
_SECRET = re.compile(rb"(?:^|&)(?:access_)?token(?:=|&|$)", re.IGNORECASE)


def check_query_secrets(query: bytes) -> None:
    """Raise `bad_query` for a token in the URL: those are kept in histories, logs and Referer headers."""
    if query and _SECRET.search(query) is not None:
        raise JobsvcError(
            "bad_query", "A token does not belong in the URL. Send it as a header: Authorization: Bearer …"
        )


def check_method(request: Request, allow: bytes) -> None:
    """Raise for a method that no path has, and for targets that are no path.

    Args:
        allow: the methods that are served somewhere.

    Raises:
        JobsvcError: method_not_allowed, bad_request.
    """
    if request.method not in KNOWN_METHODS:
        request.header(b"Allow", allow)
        raise JobsvcError(
            "method_not_allowed", "There is no such method; methods are written in capitals, as in GET."
        )
    if request.path.startswith(b"/") and request.method != b"CONNECT":
        return
    if request.method in (b"CONNECT", b"OPTIONS"):
        request.header(b"Allow", allow)
        raise JobsvcError("method_not_allowed", "This server is no proxy, and answers for paths only.")
    raise bad_request("The target has to be a path that begins with a slash.")


def check_path(path: bytes) -> None:
    """Klein logs a failure for every path that is not UTF-8, and takes `//x` for `/x`: such ones never get there."""
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise JobsvcError("not_found", "The path is not UTF-8.") from None
    if path.startswith(b"//"):
        raise JobsvcError("not_found", "The path begins with two slashes.")
