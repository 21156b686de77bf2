"""F1: what a service manager is told: ready, reloading, stopping, how it stands, and that the reactor still turns.

The protocol of sd_notify(3): datagrams on a Unix socket. Without `NOTIFY_SOCKET` all of it does nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE: Final = "WATCHDOG_PID"
STATUS_MAX_CHARS: Final = 300
"""A line in `systemctl status`."""


class Notifier:
    """See the module.

    Args:
        address: of the manager's socket: a path, or `@name` in the abstract namespace; None: nobody listens.
        watchdog_s: the manager ends the process when it hears nothing for so long; None: it does not.
        send: takes a datagram; a socket of our own by default. What it cannot take is lost: nothing waits for it.
    """

    _log = Logger()

    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        send: Callable[[bytes], None] | None = None,
    ) -> None:
        self.address = address
        self.watchdog_s = watchdog_s if address is not None else None
        self.status_text = ""
        self._socket: socket.socket | None = None
        self._given = send
        self._failed = False
        self._beating: LoopingCall | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int) -> Notifier:
        """As the manager's variables say; a watchdog that is meant for another process is none of ours."""
        address = environ.get(SOCKET_VARIABLE) or None
        if address is not None and address[0] not in "/@":
            cls._log.warn(
                "{variable} is neither a path nor an abstract name: the service manager is told nothing",
                variable=SOCKET_VARIABLE, action="notify_failed",
            )  # fmt: skip
            address = None
        usec, meant = environ.get(WATCHDOG_VARIABLE, ""), environ.get(WATCHDOG_PID_VARIABLE, "")
        ours = not meant or meant == str(pid)
        watchdog_s = int(usec) / 1e6 if usec.isascii() and usec.isdecimal() and int(usec) and ours else None
        return cls(address, watchdog_s)

    # -- what there is to tell

    def ready(self, status: str) -> None:
        """All has started, or a reload is done."""
        self.status_text = status
        self.send("READY=1", _status(status))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * 1e6)}", _status("reloading"))

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self.send("STOPPING=1", _status(status))

    def status(self, status: str) -> None:
        """One line for people."""
        if status != self.status_text:
            self.status_text = status
            self.send(_status(status))

    def beat(self, clock: IReactorTime, at_work: Callable[[], bool] = lambda: True) -> None:
        """From now on show that the reactor turns, at half of the time the manager allows.

        Args:
            at_work: whether the rest does as well; nothing is shown while it does not.
        """
        if self.watchdog_s is None or self._beating is not None:
            return

        def show() -> None:
            if at_work():
                self.send("WATCHDOG=1")

        self._beating = LoopingCall(show)
        self._beating.clock = clock
        self._beating.start(self.watchdog_s / 2)

    def close(self) -> None:
        """Nothing more is told."""
        if self._beating is not None:
            self._beating.stop()
            self._beating = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- sending

    def send(self, *assignments: str) -> None:
        """One datagram of `NAME=value` lines. Never waits, never raises."""
        if self.address is None:
            return
        data = "\n".join(assignments).encode()
        try:
            if self._given is not None:
                self._given(data)
                return
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            name = "\0" + self.address[1:] if self.address[0] == "@" else self.address
            self._socket.sendto(data, name)
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._log.warn(
                    "the service manager cannot be told: {error}", error=str(error), action="notify_failed"
                )
        else:
            self._failed = False


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:STATUS_MAX_CHARS]
