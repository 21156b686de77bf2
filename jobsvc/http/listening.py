"""F3: the listeners of a daemon, from Twisted's endpoint texts; never one that others reach without encryption.

Opening needs no running reactor, so what is wrong is known before anything has started.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure


class ListenRefused(Exception):
    """No such listener; the text names the option and says why."""


class Listeners:
    """All listeners of one daemon."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._descriptions: list[str] = []

    def open(self, description: str, site: IProtocolFactory) -> None:
        """Listen there.

        Raises:
            ListenRefused: no such endpoint, address in use, or open to other machines and not encrypted.
        """
        problem: list[Failure] = []
        _check_reach(description, _interface(description))
        try:
            listening = serverFromString(self._reactor, description).listen(site)
        except LookupError:
            raise ListenRefused(
                f"--listen {description}: no such socket was handed over by systemd (LISTEN_FDS)"
            ) from None
        except (ValueError, TypeError) as error:
            raise ListenRefused(f"--listen {description}: {error}") from None
        listening.addCallbacks(self._ports.append, problem.append)
        if problem:
            raise ListenRefused(f"--listen {description}: {problem[0].getErrorMessage()}")
        self._descriptions.append(description)
        # What the text does not tell (a name, a socket handed over by systemd) shows only now.
        _check_reach(description, getattr(self._ports[-1].getHost(), "host", None))

    def address(self) -> tuple[str | None, str | None]:
        """(url, path of the Unix socket) of the first listener of each kind."""
        url = unix = None
        for port, description in zip(self._ports, self._descriptions, strict=True):
            host: Any = port.getHost()
            if hasattr(host, "port"):
                name = f"[{host.host}]" if ":" in host.host else host.host
                scheme = "https" if _encrypted(description) else "http"
                url = url or f"{scheme}://{name}:{host.port}"
            else:
                unix = unix or str(Path(os.fsdecode(host.name)).absolute())
        return url, unix

    def check(self) -> tuple[bool, str]:
        """Whether all listen, and one line that names those which do not."""
        pairs = zip(self._ports, self._descriptions, strict=True)
        deaf = [text for port, text in pairs if not getattr(port, "connected", True)]
        words = f"{len(self._ports) - len(deaf)} of {len(self._ports)} listen"
        return not deaf and bool(self._ports), words + "".join(f"; not {text}" for text in deaf)

    async def close(self) -> None:
        """Take no more connections."""
        for port in self._ports:
            closing: Deferred[None] | None = port.stopListening()
            if closing is not None:
                await closing


def _check_reach(description: str, address: str | None) -> None:
    """Refuse an address that other machines reach without encryption."""
    if address is None or _encrypted(description) or ip_address(address).is_loopback:
        return
    raise ListenRefused(
        f"--listen {description}: {address} is open to other machines and not encrypted; "
        "listen on 127.0.0.1, on unix:, or on ssl: and tls: endpoints"
    )


def _interface(description: str) -> str | None:
    """The address that a `tcp:` endpoint would open, so that a wrong one is never opened; None where only listening
    tells.
    """  # fmt: skip
    kind, *parts = re.split(r"(?<!\\):", description)
    if kind not in ("tcp", "tcp6"):
        return None
    given = [
        part.removeprefix("interface=").replace("\\", "") for part in parts if part.startswith("interface=")
    ]
    address = given[-1] if given and given[-1] else {"tcp": "0.0.0.0", "tcp6": "::"}[kind]  # noqa: S104 - refused
    try:
        ip_address(address)
    except ValueError:
        return None
    return address


def _encrypted(description: str) -> bool:
    return description.startswith(("ssl:", "tls:"))
