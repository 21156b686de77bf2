"""F3: the listeners of a daemon, from endpoint texts; never one that others reach without encryption.

Opening needs no running reactor, so what is wrong is known before anything has started.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from jobsvc.http.certificates import BadCertificate, Certificates
from jobsvc.http.endpoints import TcpEndpoint, UnixEndpoint, parse, roomy
from jobsvc.model.listeners import interface_of, is_encrypted, is_loopback

EXPIRES_SOON = timedelta(days=14)
"""Automatic renewals come earlier: who sees this has one that does not work."""


class ListenRefused(Exception):
    """No such listener; the text names the option and says why."""


_NOT_LISTENING: Final = {
    errno.EADDRINUSE: "in use by another program; stop it, or take another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "not allowed for this user (ports below 1024, or the folder of the socket)",
    errno.ENOENT: "the folder of the socket is not there; make it first",
}
"""What the system says of a listener → for the operator who reads it."""


class Listeners:
    """All listeners of one daemon.

    Args:
        behind_proxy: a proxy stands in front and encrypts: addresses that others reach are taken as they are.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *, behind_proxy: bool = False) -> None:
        self._reactor = reactor
        self._behind_proxy = behind_proxy
        self._ports: list[IListeningPort] = []
        self._descriptions: list[str] = []
        self._certificates: dict[str, Certificates] = {}  # by the text of the listener
        self._unread: list[str] = []  # what was wrong with those that were read again last

    def open(self, description: str, site: IProtocolFactory) -> None:
        """Listen there.

        Raises:
            ListenRefused: no such endpoint, address or socket in use, a certificate that cannot be used, or open to
                other machines and not encrypted.
        """
        problem: list[Failure] = []
        self._check_reach(description, interface_of(description))
        try:
            listening = self._listen(description, site)
        except LookupError:
            raise ListenRefused(
                f"--listen {description}: no such socket was handed over by systemd (LISTEN_FDS)"
            ) from None
        except (ValueError, TypeError, BadCertificate) as error:
            raise ListenRefused(f"--listen {description}: {error}") from None
        listening.addCallbacks(self._ports.append, problem.append)
        if problem:
            raise ListenRefused(f"--listen {description}: {_why(problem[0].value)}")
        self._descriptions.append(description)
        # What the text does not tell (a name, a socket handed over by systemd) shows only now.
        self._check_reach(description, getattr(self._ports[-1].getHost(), "host", None))

    def address(self) -> tuple[str | None, str | None]:
        """(url, path of the Unix socket) of the first listener of each kind."""
        url = unix = None
        for port, description in zip(self._ports, self._descriptions, strict=True):
            host: Any = port.getHost()
            if hasattr(host, "port"):
                name = f"[{host.host}]" if ":" in host.host else host.host
                scheme = "https" if is_encrypted(description) else "http"
                url = url or f"{scheme}://{name}:{host.port}"
            else:
                unix = unix or str(Path(os.fsdecode(host.name)).absolute())
        return url, unix

    @property
    def certificates_expire(self) -> datetime | None:
        """When the first certificate in use ends; None when no listener has one."""
        return min((each.expires for each in self._certificates.values()), default=None)

    def certificate_check(self, now_us: Callable[[], int]) -> tuple[bool, str]:
        """Whether every certificate in use is good for a while yet and was read again when asked, and one line."""
        until = self.certificates_expire
        if until is None:
            return True, "none in use"
        if unread := self._unread:
            return (
                False,
                f"{'; '.join(unread)}, good until {until.isoformat()}; mend the files and send SIGHUP",
            )
        left = until - datetime.fromtimestamp(now_us() / 1e6, UTC)
        if left > EXPIRES_SOON:
            return True, f"good until {until.isoformat()}"
        words = "has ended on" if left <= timedelta(0) else "ends on"
        return False, f"the certificate {words} {until.isoformat()}; renew it and send SIGHUP"

    def reread_certificates(self) -> str | None:
        """What a SIGHUP does: `reload_certificates`, told in a few words; None when there are none.

        Raises:
            BadCertificate: what could not be used, all in one text.
        """
        if problems := self.reload_certificates():
            raise BadCertificate("; ".join(problems))
        until = self.certificates_expire
        return None if until is None else f"good until {until.isoformat()}"

    def reload_certificates(self) -> list[str]:
        """Read keys and certificates again: new connections get them, open ones go on with theirs. On any thread.

        Returns:
            What could not be used, a line each: there the old ones stay in use.
        """
        problems = []
        for description, certificates in self._certificates.items():
            try:
                certificates.reload()
            except BadCertificate as error:
                problems.append(f"--listen {description}: {error}; the certificate in use stays")
            else:
                self._log.info(
                    "{listener}: certificate read again, good until {until}",
                    listener=description, until=certificates.expires.isoformat(), action="certificate_read",
                )  # fmt: skip
        self._unread = problems
        return problems

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
                try:
                    await closing
                except FileNotFoundError:
                    # Somebody has removed the Unix socket, and Twisted stops where it would remove it itself.
                    tcp.Port.connectionLost(cast("tcp.Port", port), Failure(ConnectionDone()))

    def _listen(self, description: str, site: IProtocolFactory) -> Deferred[IListeningPort]:
        found = parse(description)
        if isinstance(found, UnixEndpoint):
            _make_way(found.path)
            endpoint: Any = UNIXServerEndpoint(
                self._reactor, str(found.path), backlog=found.backlog, mode=found.mode, wantPID=0
            )
            opened: Deferred[IListeningPort] = endpoint.listen(site)
        elif isinstance(found, TcpEndpoint):
            certificates = Certificates(found.source)
            kind = TCP6ServerEndpoint if ":" in found.interface else TCP4ServerEndpoint
            endpoint = kind(self._reactor, found.port, found.backlog, found.interface)
            opened = endpoint.listen(TLSMemoryBIOFactory(certificates, False, site))
            self._certificates[description] = certificates
        else:
            opened = serverFromString(self._reactor, roomy(description)).listen(site)
        return opened

    def _check_reach(self, description: str, address: str | None) -> None:
        """Refuse an address that other machines reach without encryption."""
        if address is None or is_encrypted(description) or self._behind_proxy or is_loopback(address):
            return
        raise ListenRefused(
            f"--listen {description}: {address} is open to other machines and not encrypted; listen on 127.0.0.1, on "
            "unix:, or on ssl: and tls: endpoints; --behind-proxy says that a proxy in front encrypts"
        )


def _why(error: BaseException | None) -> str:
    """Why nobody can listen there, and what may help."""
    if not isinstance(error, CannotListenError) or not isinstance(error.socketError, OSError):
        return str(error)
    words = _NOT_LISTENING.get(error.socketError.errno or 0)
    return words or error.socketError.strerror or str(error)


def _make_way(path: Path) -> None:
    """Remove the socket that a killed daemon left at `path`.

    Raises:
        ValueError: somebody listens there, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ValueError(f"{path} is there and is no socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full backlog must not hold up the start; it means that somebody listens
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
    raise ValueError(f"another process listens on {path}")
