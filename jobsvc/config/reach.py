"""F3: from where a listener can be reached, as far as the text of `--listen` tells."""

from __future__ import annotations

import re
from typing import Literal

Reach = Literal["machine", "encrypted", "open", "unknown"]
"""`machine`: loopback or a Unix socket. `encrypted`: TLS. `open`: from other machines, in clear. `unknown`: a socket
that systemd hands over, a host name, a kind of endpoint of a plugin; the daemon sees it when it listens."""

_ANY = {"tcp": "0.0.0.0", "tcp6": "::"}  # noqa: S104 - what Twisted takes when no interface is named


def reach_of(description: str) -> Reach:
    """Who can reach a listener of this text, in Twisted's endpoint words."""
    kind, *parts = re.split(r"(?<!\\):", description)
    if kind in ("ssl", "tls"):
        return "encrypted"
    if kind == "unix":
        return "machine"
    if kind not in _ANY:
        return "unknown"
    named = [part.partition("=")[2] for part in parts if part.startswith("interface=")]
    plain = [part for part in parts if "=" not in part]
    address = [*named, *plain[1:2]]
    from ipaddress import ip_address  # as in `kinds`

    text = next(filter(None, address), _ANY[kind]).replace("\\", "")
    try:
        return "machine" if ip_address(text.partition("%")[0]).is_loopback else "open"
    except ValueError:
        return "unknown"
