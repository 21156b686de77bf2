"""F3: whom the address of a client stands for: what is counted by address is counted by who can have it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_IPV6_SITE_BITS: Final = 64
"""One subscriber has at least this much of IPv6, 2^64 addresses: single ones of it are worth nothing."""


def host_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address, IPv4 in the dress of IPv6 as what it is; None for what is none, as a Unix socket's."""
    try:
        host = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return host if mapped is None else mapped


def site_of(host: IPv4Address | IPv6Address) -> str:
    """The name of whoever has this address: for IPv6 its /64, else the address."""
    if isinstance(host, IPv6Address):
        return str(ip_network((int(host), _IPV6_SITE_BITS), strict=False))
    return str(host)
