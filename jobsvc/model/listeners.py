"""F0: the text of `--listen`, in Twisted's endpoint words: its parts, and from where such a listener can be reached."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, Literal

Reach = Literal["machine", "encrypted", "open", "unknown"]
"""`machine`: loopback or a Unix socket. `encrypted`: TLS. `open`: from other machines, in clear. `unknown`: a socket
that systemd hands over, a host name, a kind of endpoint of a plugin; the daemon sees it when it listens."""

_ANY: Final = {"tcp": "0.0.0.0", "tcp6": "::"}  # noqa: S104 - what Twisted takes when no interface is named
_ENCRYPTED: Final = ("ssl", "tls")


def parts_of(text: str) -> tuple[str, list[str], dict[str, str]]:
    """(kind, what stands alone, what is named), without their backslashes."""
    parts = [""]
    characters = iter(text)
    for each in characters:
        if each == "\\":
            parts[-1] += each + next(characters, "")
        elif each == ":":
            parts.append("")
        else:
            parts[-1] += each
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in parts[1:]:
        name, sign, value = part.partition("=")
        if sign and name.isidentifier():
            named[name] = _plain(value)
        else:
            positional.append(_plain(part))
    return _plain(parts[0]), positional, named


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def interface_of(text: str) -> str | None:
    """The address that a `tcp:` endpoint would open; None where only listening tells: another kind, a host name."""
    kind, positional, named = parts_of(text)
    if kind not in _ANY:
        return None
    address = named.get("interface") or (positional[1] if len(positional) > 1 else "") or _ANY[kind]
    try:
        is_loopback(address)
    except ValueError:
        return None
    return address


def is_encrypted(text: str) -> bool:
    """Whether what such a listener says goes through TLS."""
    return parts_of(text)[0] in _ENCRYPTED


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address. Raises ValueError for what is none."""
    return ip_address(address.partition("%")[0]).is_loopback


def reach_of(text: str) -> Reach:
    """Who can reach a listener, as far as its text tells."""
    if is_encrypted(text):
        return "encrypted"
    if parts_of(text)[0] == "unix":
        return "machine"
    address = interface_of(text)
    if address is None:
        return "unknown"
    return "machine" if is_loopback(address) else "open"
