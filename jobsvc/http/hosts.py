"""F3: which names this server answers to, checked before anything else, for every method.

A page on another site can make a browser send requests to this address under its own name (DNS rebinding); the Host
header is what gives it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobsvc.http.framing import bad_request
from jobsvc.http.guards import READING
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CACHED_MAX = 256
"""Spellings of allowed hosts that are remembered; only allowed ones are."""
_OWN_SITES = frozenset((b"same-origin", b"none"))
"""Sec-Fetch-Site: a page of ours, or the person at the browser."""


class HostGuard:
    """Refuses foreign Host and Origin headers.

    Args:
        names: allowed beside loopback and the address that the connection came in on, without ports.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._configured = frozenset(name.lower().encode() for name in names)
        self._names = self._configured.union(name.encode() for name in LOOPBACK)
        self._seen: set[bytes] = set()

    def check(self, request: Request) -> None:
        """Raise unless the request was meant for this server, by its own page or by none.

        Raises:
            JobsvcError: bad_request, bad_host, cross_site.
        """
        headers = request.requestHeaders
        hosts = headers.getRawHeaders(b"host")
        if hosts is None:
            # HTTP/1.0 has none; no browser speaks it.
            if request.clientproto != b"HTTP/1.0":
                raise bad_request("A Host header is required.")
        elif len(hosts) != 1:
            raise bad_request("One Host header is expected, not several.")
        elif not (hosts[0] in self._seen or self._allowed(hosts[0], request)):
            raise _foreign()
        if request.authority is not None and not self._allowed(request.authority, request):
            raise _foreign()
        for origin in headers.getRawHeaders(b"origin", ()):
            if not self._own(origin, hosts):
                raise _cross_site()
        if request.method not in READING:
            for site in headers.getRawHeaders(b"sec-fetch-site", ()):
                if site not in _OWN_SITES:
                    raise _cross_site()

    def _allowed(self, host: bytes, request: Request) -> bool:
        name = _without_port(host)
        if name not in self._names:
            # Not remembered: another connection may have come in elsewhere. A Unix socket has no address.
            return bool(name) and name == _address(request)
        if len(self._seen) < _CACHED_MAX:
            self._seen.add(host)
        return True

    def _own(self, origin: bytes, hosts: Sequence[bytes] | None) -> bool:
        """Whether a page of this server sent it: of the very host and port that was asked, or of a configured name.

        Another port of this machine is another program's page.
        """
        scheme, _, host = origin.lower().partition(b"://")
        if scheme not in (b"http", b"https"):
            return False
        return (hosts is not None and host == hosts[0].lower()) or _without_port(host) in self._configured


def _foreign() -> JobsvcError:
    return JobsvcError(
        "bad_host",
        "This host name is not on the list of allowed hosts; the daemon's --allowed-host adds one.",
    )


def _cross_site() -> JobsvcError:
    return JobsvcError("cross_site", "Requests from pages of other sites are refused.")


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.lower().rpartition(b":")
    return name if colon and (port.isdigit() or not port) else host.lower()


def _address(request: Request) -> bytes:
    """The address of our end of the connection, as a Host header spells it."""
    text = str(getattr(request.host, "host", ""))
    return f"[{text}]".encode() if ":" in text else text.encode()
