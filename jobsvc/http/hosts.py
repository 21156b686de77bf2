"""F3: which names this server answers to, checked before anything else, for every method.

A page on another site can make a browser send requests to this address under its own name (DNS rebinding); the Host
header is what gives it away.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CACHED_MAX = 256
"""Spellings of allowed hosts that are remembered; only allowed ones are."""
_METHODS_OF_READING = frozenset((b"GET", b"HEAD"))


class HostGuard:
    """Refuses foreign Host and Origin headers.

    Args:
        names: allowed beside loopback and the address that the connection came in on, without ports.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().encode() for name in (*LOOPBACK, *names))
        self._seen: set[bytes] = set()

    def check(self, request: Request) -> None:
        """Raise `bad_host` or `cross_site` unless the request was meant for this server, by its own page or by none."""
        headers = request.requestHeaders
        hosts = headers.getRawHeaders(b"host")
        if hosts is None:
            # HTTP/1.0 has none; no browser speaks it.
            if request.clientproto != b"HTTP/1.0":
                raise JobsvcError("bad_host", "A Host header is required.")
        elif len(hosts) != 1 or not (hosts[0] in self._seen or self._allowed(hosts[0], request)):
            raise JobsvcError("bad_host", "This host name is not on the list of allowed hosts.")
        origin = headers.getRawHeaders(b"origin")
        if origin is not None and not self._own(origin[-1], request):
            raise JobsvcError("cross_site", "Requests from pages of other sites are refused.")
        if request.method not in _METHODS_OF_READING:
            site = headers.getRawHeaders(b"sec-fetch-site")
            if site is not None and site[-1] not in (b"same-origin", b"none"):
                raise JobsvcError("cross_site", "Requests from pages of other sites are refused.")

    def _allowed(self, host: bytes, request: Request) -> bool:
        name = _without_port(host)
        if name not in self._names:
            return name == _address(request)  # not remembered: another connection may have come in elsewhere
        if len(self._seen) < _CACHED_MAX:
            self._seen.add(host)
        return True

    def _own(self, origin: bytes, request: Request) -> bool:
        scheme, _, host = origin.partition(b"://")
        return scheme in (b"http", b"https") and (host in self._seen or self._allowed(host, request))


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.lower().rpartition(b":")
    return name if colon and port.isdigit() else host.lower()


def _address(request: Request) -> bytes:
    """The address of our end of the connection, as a Host header spells it."""
    text = str(getattr(request.host, "host", ""))
    return f"[{text}]".encode() if ":" in text else text.encode()
