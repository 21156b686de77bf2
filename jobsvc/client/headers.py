"""F2: the headers that every request of a client carries. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jobsvc.client.core import USER_AGENT
from jobsvc.client.discovery import Target

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "expect",
        "accept",
        "content-type",
        "prefer",
        "if-match",
        "if-none-match",
        "last-event-id",
        "idempotency-key",
    )
)
"""What the client sets for each request; another value would break its framing or change what it means."""


def common_headers(target: Target, given: Mapping[str, str]) -> dict[str, str]:
    """What goes with every request: the client's own, the token, and what its user gave, which wins.

    Raises:
        ValueError: a name or value that HTTP cannot carry, or a header that the transport sets itself.
    """
    for name, value in given.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(
                f"headers: {name!r}: {value!r} is no header: a name of letters, digits and hyphens and a value "
                "without control characters are expected"
            )
        if name.lower() in _OURS:
            raise ValueError(f"headers: {name} is set by the client for each request")
    ours = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if target.token:
        ours["Authorization"] = f"Bearer {target.token}"
    taken = {name.lower() for name in given}
    return {name: value for name, value in ours.items() if name.lower() not in taken} | dict(given)
