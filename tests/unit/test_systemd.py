"""What a service manager hears, on a real datagram socket, by path and by abstract name."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from jobsvc.runtime.systemd import STATUS_MAX_CHARS, Notifier


class Manager:
    """The manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Each datagram's lines."""
        out: list[list[str]] = []
        while True:
            try:
                out.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return out

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """By path, and by a name in the abstract namespace."""
    address = f"@jobsvc-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    found = Manager(address)
    yield found
    found.close()


def test_what_is_told(manager: Manager) -> None:
    """Ready, reloading with the moment, stopping, status; a status is one line, and told when it is another."""
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.address}, os.getpid())
    notifier.ready("ready on http://x")
    notifier.status("ready on http://x")
    notifier.status("two\nlines READY=1\n" + "x" * 999)
    notifier.reloading()
    notifier.stopping("draining")
    notifier.close()
    ready, status, reloading, stopping = manager.heard()
    assert ready == ["READY=1", "STATUS=ready on http://x"]
    assert status[0].startswith("STATUS=two lines READY=1 xxx")
    assert (len(status), len(status[0])) == (1, len("STATUS=") + STATUS_MAX_CHARS)
    assert (reloading[0], reloading[2]) == ("RELOADING=1", "STATUS=reloading")
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
    assert stopping == ["STOPPING=1", "STATUS=draining"]


def test_the_reactor_shows_that_it_turns(manager: Manager) -> None:
    """F66: at half of the time allowed, while the reactor's clock runs; a reactor that hangs shows nothing."""
    environ = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    notifier = Notifier.from_environ(environ, os.getpid())
    clock = Clock()
    well = [True]
    notifier.beat(clock, lambda: well[0])
    notifier.beat(clock)
    clock.pump([14.9, 0.2, 14.9, 0.2])
    assert manager.heard() == [["WATCHDOG=1"]] * 3
    well[0] = False
    clock.pump([15, 15])
    assert manager.heard() == [], "the reactor turns, but the rest does not"
    well[0] = True
    clock.advance(15)
    assert manager.heard() == [["WATCHDOG=1"]]
    notifier.close()
    clock.advance(100)
    assert manager.heard() == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "-5"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "3000000"}, None),
        ({}, None),
    ],
)
def test_the_managers_variables(environ: dict[str, str], watchdog_s: float | None) -> None:
    """What is not for this process, or makes no sense, is no watchdog."""
    assert Notifier.from_environ(environ, 7).watchdog_s == watchdog_s


def test_nobody_listens() -> None:
    """No manager: nothing happens, no timer runs. One that is gone: said once, nothing raised."""
    clock = Clock()
    silent = Notifier()
    silent.ready("x")
    silent.beat(clock)
    assert clock.getDelayedCalls() == []
    sent: list[bytes] = []

    def send(data: bytes) -> None:
        sent.append(data)
        raise ConnectionRefusedError

    gone = Notifier("/nowhere", 1.0, send)
    gone.ready("x")
    gone.stopping("y")
    assert len(sent) == 2
    gone.close()
