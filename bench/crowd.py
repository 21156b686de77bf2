"""Many connections that hang on to a server in their own way: idle, waiting, reading, dawdling or flooding it.

A process of its own, so that its work is not the server's. A plan goes in on standard input; `ready` comes out once
each guest has sent its request and, where that is asked for, got its first bytes; when standard input is closed, the
outcome comes out (both msgpack). The parent's side is `Crowd`.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec

from bench.load import ROOT, LoadFailed

_LENGTH = struct.Struct(">I")
READ_BYTES = 256 * 1024
FLOOD_BYTES = 64 * 1024
"""Of a flooding guest: what it offers at a time."""
SMALL_BUFFER_BYTES = 4_096
"""Receive buffer of a guest that sips, so that the kernel does not read in its place."""
READY_S = 120.0
LOOK_S = 0.05


class Plan(msgspec.Struct, kw_only=True):
    """What the guests do.

    `requests` are sent one each, in turn. `marker` is a pattern with one group, a moment of CLOCK_MONOTONIC in seconds:
    each time it is met in what comes, the time since then is noted.
    """

    host: str
    port: int
    requests: list[bytes]
    guests: int
    greeted: bool = False
    """Ready only once each guest has got a byte."""
    drip_every_s: float = 0.0
    """After its request each guest sends one byte more that often."""
    sip_bytes: int = 0
    sip_every_s: float = 0.0
    """Read only so much that often; 0: all, at once."""
    flood: bool = False
    """After its request each guest sends as much as is taken."""
    marker: str = ""


class Guest(msgspec.Struct):
    """What one guest has seen; moments of CLOCK_MONOTONIC, 0 = never. `status` is of its first reply."""

    began_at: float = 0.0
    first_at: float = 0.0
    ended_at: float = 0.0
    received: int = 0
    sent: int = 0
    status: int = 0


class Outcome(msgspec.Struct):
    """What all have seen. `late_s`: between each marker's moment and its arrival."""

    guests: list[Guest] = []
    late_s: list[float] = []


class _Seat:
    """One guest's connection."""

    def __init__(self, plan: Plan, request: bytes, poll: select.epoll, late_s: list[float]) -> None:
        self._plan = plan
        self._late_s = late_s
        self._marker = re.compile(plan.marker.encode()) if plan.marker else None
        self._text = b""
        self._socket = socket.socket()
        if plan.sip_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        self._socket.connect((plan.host, plan.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        self._socket.setblocking(False)
        self.guest = Guest(began_at=monotonic(), sent=len(request))
        self.next_at = monotonic() + (plan.drip_every_s or plan.sip_every_s)
        events = 0 if plan.sip_bytes else select.EPOLLIN
        poll.register(self._socket, events | (select.EPOLLOUT if plan.flood else 0))
        self._poll = poll

    def fileno(self) -> int:
        return self._socket.fileno()

    def ready(self, events: int) -> None:
        """The socket can be read or written."""
        if events & select.EPOLLOUT and self._plan.flood:
            self._guarded(self._flood)
        if events & ~select.EPOLLOUT and not self.guest.ended_at:
            self._guarded(self._read, READ_BYTES)

    def tick(self, now: float) -> None:
        """Drip or sip when it is time."""
        if self.guest.ended_at or now < self.next_at:
            return
        if self._plan.drip_every_s:
            self.next_at = now + self._plan.drip_every_s
            self._guarded(self._drip)
        elif self._plan.sip_every_s:
            self.next_at = now + self._plan.sip_every_s
            self._guarded(self._read, self._plan.sip_bytes)

    def _guarded(self, act: object, *args: int) -> None:
        try:
            act(*args)  # type: ignore[operator]
        except BlockingIOError:
            pass
        except OSError:  # reset by the server: that is an end like another
            self._end()

    def _drip(self) -> None:
        self.guest.sent += self._socket.send(b"x")

    def _flood(self) -> None:
        self.guest.sent += self._socket.send(bytes(FLOOD_BYTES))

    def _read(self, count: int) -> None:
        data = self._socket.recv(count)
        now = monotonic()
        if not data:
            self._end()
            return
        guest = self.guest
        guest.first_at = guest.first_at or now
        if not guest.received:
            guest.status = int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else -1
        guest.received += len(data)
        if self._marker is not None:
            whole, _, self._text = (self._text + data).rpartition(b"\n")
            self._late_s += [now - float(found[1]) for found in self._marker.finditer(whole)]

    def _end(self) -> None:
        self.guest.ended_at = monotonic()
        self._poll.unregister(self._socket)
        self._socket.close()


def _stay(plan: Plan) -> Outcome:
    """Come, say `ready`, and stay until standard input is closed."""
    outcome = Outcome()
    poll = select.epoll()
    seats = [
        _Seat(plan, plan.requests[number % len(plan.requests)], poll, outcome.late_s)
        for number in range(plan.guests)
    ]
    by_fd = {seat.fileno(): seat for seat in seats}
    timed = [seat for seat in seats if plan.drip_every_s or plan.sip_every_s]
    outcome.guests = [seat.guest for seat in seats]
    waiting = True
    poll.register(0, select.EPOLLIN)
    while True:
        if waiting and (not plan.greeted or all(guest.first_at for guest in outcome.guests)):
            sys.stdout.buffer.write(b"ready\n")
            sys.stdout.buffer.flush()
            waiting = False
        for fd, events in poll.poll(LOOK_S):
            if fd == 0:
                return outcome
            by_fd[fd].ready(events)
        now = monotonic()
        for seat in timed:
            seat.tick(now)


class Crowd:
    """Guests that are there; `leave` sends them away."""

    def __init__(self, plan: Plan) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.crowd"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._in, self._out = self._child.stdin, self._child.stdout
        text = msgspec.msgpack.encode(plan)
        self._in.write(_LENGTH.pack(len(text)) + text)
        self._in.flush()
        if not select.select([self._out], [], [], READY_S)[0] or self._out.readline() != b"ready\n":
            self._child.kill()
            raise LoadFailed(f"the crowd of {plan.guests} was not complete within {READY_S:g} s")

    def leave(self) -> Outcome:
        """Send them away; what they have seen."""
        self._in.close()
        text = self._out.read()
        if self._child.wait():
            raise LoadFailed("the crowd has broken down")
        return msgspec.msgpack.decode(text, type=Outcome)

    def kill(self) -> None:
        """When the run is given up."""
        self._child.kill()
        self._child.wait()
        self._in.close()
        self._out.close()


@contextmanager
def crowd(plan: Plan) -> Iterator[Crowd]:
    """A crowd that is gone afterwards."""
    here = Crowd(plan)
    try:
        yield here
    finally:
        here.kill()


def main() -> None:
    """The child's side of `Crowd`."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # nothing may be buffered: `_stay` polls it
        (length,) = _LENGTH.unpack(stdin.read(_LENGTH.size))
        text = b""
        while len(text) < length:
            text += stdin.read(length - len(text))
    outcome = _stay(msgspec.msgpack.decode(text, type=Plan))
    sys.stdout.buffer.write(msgspec.msgpack.encode(outcome))


if __name__ == "__main__":
    main()
