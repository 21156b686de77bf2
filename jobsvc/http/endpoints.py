"""F3: the text of `--listen` taken apart: Twisted's grammar, with the kinds whose opening is ours.

`ssl:` and `tls:` are ours because Twisted reads a certificate once for the life of a listener; `unix:` because its
socket is to be closed to others, and one left by a killed daemon is no reason to refuse.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from jobsvc.http.certificates import Material
from jobsvc.model.listeners import parts_of

UNIX_MODE = 0o660
"""Owner and group; whoever may open the socket still needs a token."""
BACKLOG = 1_024
"""Connections that wait to be accepted. One that finds no room comes again after a second: with Twisted's 50, two
thousand clients that came at once took half a minute (measured)."""
PORT_MAX = 65_535
MODE_MAX = 0o777

_TCP_POSITIONAL = 3
"""A text of Twisted may name port, interface and backlog by their places."""
_TCP_OPTIONS = frozenset(("interface", "backlog"))
_TCP_NAMES = ("port", "interface", "backlog")
_SSL_OPTIONS = _TCP_OPTIONS | {"privateKey", "certKey", "extraCertChain", "clientCA"}
_TLS_OPTIONS = _TCP_OPTIONS | {"port"}
_UNIX_OPTIONS = frozenset(("mode", "backlog", "lockfile"))


class EndpointError(ValueError):
    """Not such an endpoint; the text says why."""


class TcpEndpoint(msgspec.Struct, frozen=True):
    """A TCP listener with TLS over it. `source` as `Certificates` takes it."""

    port: int
    interface: str
    backlog: int
    source: Material | Path


class UnixEndpoint(msgspec.Struct, frozen=True):
    """A Unix socket."""

    path: Path
    mode: int
    backlog: int


def parse(text: str) -> TcpEndpoint | UnixEndpoint | None:
    """The endpoint that `text` names; None where it is of a kind that Twisted opens (`tcp:`, `systemd:`). Of `tcp:` the
    options are judged here too: Twisted's refusals are written for programmers.

    `ssl:8787:privateKey=key.pem:certKey=cert.pem:extraCertChain=chain.pem:clientCA=ca.pem:interface=0.0.0.0`,
    `tls:/etc/certificates:port=8787:interface=::`, `unix:/run/jobsvc.sock:mode=660`. A backslash before a colon makes
    it part of the value.

    Raises:
        EndpointError: an unknown option, or a value out of its range.
    """
    kind, positional, options = parts_of(text)
    if kind.isdigit():
        raise EndpointError(f"the kind comes first: tcp:{kind}:interface=127.0.0.1")
    if kind in ("tcp", "tcp6"):
        _known(kind, positional, options, _TCP_NAMES, _TCP_OPTIONS, needed=1)
        _number("port", options["port"], PORT_MAX)
        _number("backlog", options.get("backlog", str(BACKLOG)))
        return None
    if kind == "ssl":
        _known(kind, positional, options, ("port",), _SSL_OPTIONS)
        key = Path(options.get("privateKey", "server.pem"))
        return TcpEndpoint(
            _number("port", options["port"], PORT_MAX),
            options.get("interface", ""),
            _number("backlog", options.get("backlog", str(BACKLOG))),
            Material(
                key=key,
                certificate=Path(options["certKey"]) if "certKey" in options else key,
                chain=Path(options["extraCertChain"]) if "extraCertChain" in options else None,
                client_ca=Path(options["clientCA"]) if "clientCA" in options else None,
            ),
        )
    if kind == "tls":
        _known(kind, positional, options, ("path",), _TLS_OPTIONS)
        return TcpEndpoint(
            _number("port", options.get("port", "443"), PORT_MAX),
            options.get("interface", "::"),
            _number("backlog", options.get("backlog", str(BACKLOG))),
            Path(options["path"]),
        )
    if kind == "unix":
        _known(kind, positional, options, ("address",), _UNIX_OPTIONS)
        return UnixEndpoint(
            Path(options["address"]),
            _mode(options["mode"]) if "mode" in options else UNIX_MODE,
            _number("backlog", options.get("backlog", str(BACKLOG))),
        )
    return None


def roomy(text: str) -> str:
    """The same endpoint, for Twisted, with our backlog where the text names none."""
    kind, positional, options = parts_of(text)
    if kind not in ("tcp", "tcp6") or "backlog" in options or len(positional) >= _TCP_POSITIONAL:
        return text
    return f"{text}:backlog={BACKLOG}"


def _known(
    kind: str,
    positional: list[str],
    options: dict[str, str],
    names: tuple[str, ...],
    known: frozenset[str],
    needed: int | None = None,
) -> None:
    """Name what stands alone, refuse what nobody knows; the first `needed` of `names` must be there, or all."""
    if options.get("interface") == "":
        raise EndpointError(
            "interface is empty; a colon within an address is written \\:, as in interface=\\:\\:1"
        )
    for name, value in zip(names, positional, strict=False):
        options.setdefault(name, value)
    if len(positional) > len(names):
        raise EndpointError(f"{positional[len(names)]!r} has no name; options are written name=value")
    for name in names[:needed]:
        if not options.get(name):
            raise EndpointError(f"{kind}: needs a {name}")
    for name in options:
        if name not in known and name not in names:
            raise EndpointError(f"{kind}: has no option {name}; it has {', '.join(sorted(known))}")


def _number(name: str, text: str, most: int = 1_000_000) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise EndpointError(f"{name}={text}: a number from 0 to {most} is expected")
    return int(text)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= MODE_MAX:
        raise EndpointError(f"mode={text}: an octal number such as 660 is expected")
    return mode
